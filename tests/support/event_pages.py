"""The systemd catalog and docs/reference/journal.md, made from the table of events and its explanations.

`make docs` writes both again.
"""

from __future__ import annotations

import re
from pathlib import Path

from supervisor.journal.events import EVENTS, LEVEL_NAMES
from supervisor.journal.explanations import EXPLANATIONS, catalog

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "reference" / "journal.md"
CATALOG = CHECKOUT / "systemd" / "pgsupervisor.catalog"
REMEDY = "it is stale: run `make docs`"

# What is code already, or a field of the entry.
_FIELD = re.compile(r"`[^`]*`|@([A-Z_]+)@")

_HEAD = """# The events of the journal

All events of the daemon, with the explanations that `journalctl -x` shows. How to filter by them:
[troubleshooting](../how-to/troubleshooting.md#read-the-journal). What your workers log through `ctx.log` has its own
text as `EVENT`.

A name in capitals, such as `REASON`, is a field of the entry. A MESSAGE_ID never changes.

Equal entries are folded: the first is shown at once, the others are counted and reported by `log.repeated`. Two entries
are equal when they have the same event, the same level and the same values of the fields listed under *equal by*. Two
entries of `ctx.log` are equal when all of their fields are, except the message of an exception. With `PLACE`, the whole
path of the exception through your code counts, and so do its causes; of its messages the first eight are shown each.

| event | level | |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page as it has to be."""
    rows = [
        f"| [`{name}`](#{_anchor(name)}) | {LEVEL_NAMES[event_type.level]} | {_marked(EXPLANATIONS[name].subject)} |"
        for name, event_type in EVENTS.items()
    ]
    sections = []
    for name, event_type in EVENTS.items():
        facts = f"`MESSAGE_ID={event_type.message_id}`"
        if event_type.never_folded:
            facts += " · never folded"
        elif event_type.fold_by:
            facts += f" · equal by {', '.join(f'`{field.upper()}`' for field in event_type.fold_by)}"
        sections.append(f"## {name}\n\n{_marked(EXPLANATIONS[name].body)}\n\n{facts}\n")
    return _HEAD + "\n".join(rows) + "\n\n" + "\n".join(sections)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _marked(text: str) -> str:
    return _FIELD.sub(lambda match: match[0].replace("@", "") if match[1] is None else f"`{match[1]}`", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    CATALOG.write_text(catalog(), encoding="utf-8")
