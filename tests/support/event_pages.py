"""docs/journal.md, made from the table of events and the catalog: `python -m support.event_pages` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from supervisor.journal.events import EVENTS, LEVEL_NAMES

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "journal.md"
CATALOG = CHECKOUT / "systemd" / "pgsupervisor.catalog"

# What is code already, or a field of the entry.
_FIELD = re.compile(r"`[^`]*`|@([A-Z_]+)@")

_HEAD = """# The events of the journal

Everything that the daemon says, with the explanation that `journalctl -x` gives. How to filter by them:
[README](../README.md#reading-the-journal). What your workers say through `ctx.log` has its own text as `EVENT`.

A name in capitals, such as `REASON`, is a field of the entry. An event and its MESSAGE_ID never change.

| event | level | |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page as it has to be."""
    explained = _explanations()
    rows = [
        f"| [`{kind.name}`](#{_anchor(kind.name)}) | {LEVEL_NAMES[kind.level]} | {explained[kind.message_id][0]} |"
        for kind in EVENTS.values()
    ]
    sections = []
    for kind in EVENTS.values():
        _, body = explained[kind.message_id]
        sections.append(f"## {kind.name}\n\n{body}\n\n`MESSAGE_ID={kind.message_id}`\n")
    return _HEAD + "\n".join(rows) + "\n\n" + "\n".join(sections)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _explanations() -> dict[str, tuple[str, str]]:
    """Return subject and body of each paragraph of the catalog by its MESSAGE_ID."""
    text = re.sub(r"^#.*\n", "", CATALOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    parts = re.split(r"^-- ([0-9a-f]{32})$", text, flags=re.MULTILINE)
    found = {}
    for message_id, entry in zip(parts[1::2], parts[2::2], strict=True):
        header, _, body = _FIELD.sub(_name, entry.strip()).partition("\n\n")
        subject = re.search(r"^Subject: (.*)$", header, re.MULTILINE)
        assert subject is not None, f"no subject for {message_id}"
        found[message_id] = (subject[1], body)
    return found


def _name(match: re.Match[str]) -> str:
    return match[0].replace("@", "") if match[1] is None else f"`{match[1]}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
