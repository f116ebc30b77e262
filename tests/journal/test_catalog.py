"""The catalog for `journalctl -x` explains every event."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.journal.events import EVENTS, EventType
from supervisor.journal.templates import names_in

CATALOG = Path(__file__).parents[2] / "systemd" / "pgsupervisor.catalog"


def paragraphs() -> dict[str, str]:
    """Return the text of each entry by its MESSAGE_ID."""
    parts = re.split(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ids, texts = parts[1::2], parts[2::2]
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, texts, strict=True))


def test_every_event_is_explained_once() -> None:
    """Each MESSAGE_ID of the table stands in the catalog once, and no other does."""
    assert paragraphs().keys() == {kind.message_id for kind in EVENTS.values()}


@pytest.mark.parametrize("kind", EVENTS.values(), ids=lambda kind: kind.name)
def test_an_explanation_is_whole(kind: EventType) -> None:
    """It has a subject, says who defines it, and what happened and what to do."""
    text = paragraphs()[kind.message_id]
    header, _, body = text.strip().partition("\n\n")
    assert re.search(r"^Subject: \S", header, re.MULTILINE)
    assert "Defined-By: pgsupervisor" in header
    assert len(body.split("\n\n")) >= 2


def test_the_fields_it_shows_exist() -> None:
    """A field in an explanation is one that some sentence knows, or one of those that stand beside it."""
    known = {name.upper() for kind in EVENTS.values() for name in names_in(kind.sentence)}
    used = set(re.findall(r"@(\w+)@", CATALOG.read_text(encoding="utf-8")))
    assert used <= known | {"STACK", "TRACEBACK", "PLACE"}


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
