"""Entries for people who watch: time, level, what happened, and below it the traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.journal.events import CRITICAL, DEBUG, ERROR, INFO, LEVEL_NAMES, WARNING
from supervisor.journal.printable import printable
from supervisor.journal.sentence import as_text

if TYPE_CHECKING:
    from supervisor.journal.entry import Rendered

_COLOURS = {DEBUG: "2", INFO: "32", WARNING: "33", ERROR: "31", CRITICAL: "1;31"}
_BELOW = ("traceback", "stack")
_INDENT = "\n    "


def encode_coloured(entry: Rendered) -> bytes:
    """Return an entry in colours."""
    return _encode(entry, coloured=True)


def encode_plain(entry: Rendered) -> bytes:
    """Return an entry for a terminal without colours."""
    return _encode(entry, coloured=False)


def _encode(entry: Rendered, *, coloured: bool) -> bytes:
    def paint(text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if coloured and text else text

    colour = _COLOURS.get(entry.level, "0")
    parts = [
        paint(entry.at.strftime("%H:%M:%S.") + f"{entry.at.microsecond // 1000:03d}", "2"),
        paint(f"{LEVEL_NAMES.get(entry.level, 'info'):8}", colour),
        paint(f"{_head(entry):20}", "36"),
        paint(_shown(entry.message), "1" if entry.level >= WARNING else "0"),
        paint(" ".join(f"{_shown(name)}={_shown(as_text(entry.fields[name]))}" for name in entry.beside), "2"),
    ]
    lines = [" ".join(part for part in parts if part)]
    lines += (_INDENT[1:] + _shown(as_text(entry.fields[name])) for name in _BELOW if entry.fields.get(name))
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _head(entry: Rendered) -> str:
    # A worker's own event is in its message already; who says it is what helps.
    worker = entry.fields.get("worker")
    is_own = entry.message.startswith(entry.event)
    return printable(str(worker)) if is_own and worker else printable(entry.event if not is_own else "")


def _shown(text: str) -> str:
    return printable(text.rstrip("\n")).replace("\n", _INDENT)
