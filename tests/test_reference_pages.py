"""The generated reference pages are up to date, and say what is so."""

from __future__ import annotations

import pytest
from support.reference_pages import FOLDER, PAGES, REMEDY

from supervisor.cli.main import command_parser
from supervisor.config.kinds import KINDS
from supervisor.config.schema import BACKOFF, COMMON, CONNECT, DATABASE, EVENTS, LOG, SUPERVISOR, TOP

_KEYS = [SUPERVISOR, LOG, DATABASE, EVENTS, COMMON, CONNECT, BACKOFF, TOP, *(kind.keys for kind in KINDS.values())]


@pytest.mark.parametrize("file", PAGES)
def test_the_page_is_up_to_date(file: str) -> None:
    """The page is what the schema, or the parser, gives today."""
    assert (FOLDER / file).read_text("utf-8") == PAGES[file](), REMEDY


@pytest.mark.parametrize(
    "name", [(name, key) for keys in _KEYS for name, key in keys.items()], ids=lambda pair: pair[0]
)
def test_every_key_has_a_sentence(name: tuple[str, object]) -> None:
    """The meaning of a key begins with a capital letter and ends with a full stop."""
    key = name[1]
    doc = getattr(key, "doc", "")
    assert doc[:1] in "`" or doc[0].isupper()
    assert doc.endswith(".")
    assert "|" not in doc


def test_the_help_names_every_command_once() -> None:
    """`--help` lists what the page explains."""
    text = command_parser().format_help()
    for name in ("run", "check", "status", "reload", "pause", "migrate", "append", "projections", "unit"):
        assert text.count(f"\n    {name} ") == 1
