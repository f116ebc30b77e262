"""The catalog for `journalctl -x` explains every event."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.event_pages import CATALOG, PAGE, REMEDY, page

from supervisor.journal.events import EVENTS, EventType
from supervisor.journal.explanations import EXPLANATIONS, catalog

if TYPE_CHECKING:
    from pathlib import Path


def paragraphs() -> dict[str, str]:
    """Return the text of each entry by its MESSAGE_ID."""
    parts = re.split(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ids, texts = parts[1::2], parts[2::2]
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, texts, strict=True))


def test_the_catalog_and_the_page_are_made_from_the_table() -> None:
    """The systemd catalog and docs/reference/journal.md are what the table and the explanations give."""
    assert CATALOG.read_text("utf-8") == catalog(), REMEDY
    assert PAGE.read_text("utf-8") == page(), REMEDY


def test_every_event_is_explained_once() -> None:
    """Each MESSAGE_ID of the table stands in the catalog once, and no other does."""
    assert paragraphs().keys() == {event_type.message_id for event_type in EVENTS.values()}


@pytest.mark.parametrize("event_type", EVENTS.values(), ids=lambda event_type: event_type.name)
def test_an_explanation_is_whole(event_type: EventType) -> None:
    """It has a subject, says that pgsupervisor defines it, what happened and what to do."""
    text = paragraphs()[event_type.message_id]
    header, _, body = text.strip().partition("\n\n")
    assert re.search(r"^Subject: \S", header, re.MULTILINE)
    assert "Defined-By: pgsupervisor" in header
    assert len(body.split("\n\n")) >= 2


def test_the_fields_it_shows_exist() -> None:
    """A field in an explanation is a field of its event."""
    for event_type in EVENTS.values():
        known = {name.upper() for name in (*event_type.fold_by, *event_type.varies)}
        assert set(re.findall(r"@(\w+)@", EXPLANATIONS[event_type.name].body)) <= known


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is not installed")
def test_journalctl_takes_it(tmp_path: Path) -> None:
    """The real journalctl compiles the catalog and finds every event in it."""
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(CATALOG, folder)
    made = subprocess.run(
        ["journalctl", "--update-catalog", f"--root={tmp_path}"], capture_output=True, text=True, check=True
    )
    assert not made.stderr
    compiled = (tmp_path / "var/lib/systemd/catalog/database").read_bytes()
    assert compiled.count(b"Defined-By: pgsupervisor") == len(EVENTS)
