"""The generated reference pages are up to date, and have a sentence for each key."""

from __future__ import annotations

import pytest
from support.reference_pages import FOLDER, PAGES, REMEDY

from supervisor.config.kinds import KINDS
from supervisor.config.schema import BACKOFF, COMMON, CONNECT, DATABASE, EVENTS, LOG, SUPERVISOR, TOP

_KEYS = [SUPERVISOR, LOG, DATABASE, EVENTS, COMMON, CONNECT, BACKOFF, TOP, *(kind.keys for kind in KINDS.values())]


@pytest.mark.parametrize("file", PAGES)
def test_the_page_is_up_to_date(file: str) -> None:
    """The page is what the schema, or the parser, gives today."""
    assert (FOLDER / file).read_text("utf-8") == PAGES[file](), REMEDY


@pytest.mark.parametrize(("name", "doc"), [(name, key.doc) for keys in _KEYS for name, key in keys.items()])
def test_every_key_has_a_sentence(name: str, doc: str) -> None:
    """The meaning of a key begins with a capital letter or a value, and ends with a full stop."""
    assert doc[0] == "`" or doc[0].isupper(), name
    assert doc.endswith("."), name
    assert "|" not in doc, name
