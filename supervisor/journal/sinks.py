"""Where entries go and in which form: chosen from the configured format and from what stderr is."""

from __future__ import annotations

import json
import math
import os
import select
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple, Protocol

from supervisor.escaping import printable
from supervisor.journal.events import CRITICAL, DEBUG, ERROR, INFO, LEVEL_NAMES, WARNING
from supervisor.journal.journald import SOCKET_PATH, JournalSocket, encode_native
from supervisor.journal.templates import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.journal.entry import Rendered
    from supervisor.journal.fields import Value

_STDOUT, _STDERR = 1, 2

_COLOURS = {DEBUG: "2", INFO: "32", WARNING: "33", ERROR: "31", CRITICAL: "1;31"}
_BELOW = ("traceback", "stack")
_INDENT = "\n    "


class Target(Protocol):
    """Something that takes whole entries, one at a time."""

    def write(self, data: bytes) -> None:
        """Write one entry in full; may block, for only the writer's thread waits.

        Raises:
            OSError: It cannot be written now; the same data may be offered again.
        """

    def close(self) -> None:
        """Release what it holds."""


class Sink(NamedTuple):
    """A form and a target."""

    encode: Callable[[Rendered], bytes]
    target: Target


class Stream:
    """A file descriptor that others opened: stderr."""

    def __init__(self, descriptor: int = _STDERR) -> None:
        self._descriptor = descriptor
        # What was offered last, and what of it is still to be written.
        self._offered = self._rest = b""

    def write(self, data: bytes) -> None:
        """Write all of `data`; after an error the rest of it follows when the same data is offered again."""
        # The descriptor may be non-blocking (other users of the terminal decide) and a disk may fill up in mid-line.
        if data is not self._offered:
            # A line that was begun and then given up must not swallow the next one.
            is_torn = len(self._rest) < len(self._offered) and self._rest
            self._offered, self._rest = data, b"\n" + data if is_torn else data
        view = memoryview(self._rest)
        try:
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:
                    _wait_until_writable(self._descriptor)
        finally:
            self._rest = bytes(view)
        self._offered = b""

    def close(self) -> None:
        """Do nothing: the descriptor belongs to others."""


def choose_sink(log_format: str, environ: Mapping[str, str], *, socket_path: str = SOCKET_PATH) -> Sink:
    """Return where entries go.

    Args:
        log_format: `auto`, `journal`, `terminal` or `json`.
        environ: Read for JOURNAL_STREAM and NO_COLOR.
        socket_path: Where journald listens.
    """
    if log_format == "auto":
        log_format = _detect_format(environ)
    if log_format == "journal" and os.path.exists(socket_path):  # noqa: PTH110 - pathlib costs start-up time
        return Sink(encode_native, JournalSocket(socket_path))
    if log_format == "terminal":
        coloured = _is_terminal() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return Sink(encode_coloured if coloured else encode_plain, Stream())
    return Sink(encode_json_line, Stream())


def reserve_standard_fds() -> None:
    """Put /dev/null in the place of a closed stdin, stdout or stderr, before anything else takes its number.

    Otherwise what is written to stderr would one day go to the event loop's or the database's descriptor.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _detect_format(environ: Mapping[str, str]) -> str:
    # The variable may be inherited by a process whose stderr is something else: only a match counts.
    stream = environ.get("JOURNAL_STREAM")
    if stream and stream in (_identity(_STDERR), _identity(_STDOUT) if _is_dev_null() else None):
        return "journal"
    return "terminal" if _is_terminal() else "json"


def _identity(descriptor: int) -> str | None:
    """Return a descriptor in the spelling of JOURNAL_STREAM; None: it is closed."""
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return None
    return f"{stat.st_dev}:{stat.st_ino}"


def _is_dev_null() -> bool:
    """Return whether stderr is closed or /dev/null."""
    try:
        return os.fstat(_STDERR).st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116 - pathlib costs start-up time
    except OSError:
        return True


def _is_terminal() -> bool:
    return os.isatty(_STDERR)


def _wait_until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def encode_json_line(entry: Rendered) -> bytes:
    """Return an entry as one JSON object on one line, for collectors and pipes; `ts` is UTC."""
    line = {
        "ts": entry.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": LEVEL_NAMES.get(entry.level, "info"),
        "event": entry.event,
        "message": entry.message,
        **{name.lower(): _json_value(value) for name, value in entry.fields.items()},
    }
    # A lone surrogate becomes \udc80, which is exactly how JSON spells it.
    return (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _json_value(value: Value) -> Value:
    # JSON cannot spell infinity and NaN.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def encode_coloured(entry: Rendered) -> bytes:
    """Return an entry in colours: time, level, what happened, and below it the traceback."""
    return _encode_for_terminal(entry, coloured=True)


def encode_plain(entry: Rendered) -> bytes:
    """Return an entry for a terminal without colours."""
    return _encode_for_terminal(entry, coloured=False)


def _encode_for_terminal(entry: Rendered, *, coloured: bool) -> bytes:
    def paint(text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if coloured and text else text

    extra = (f"{_indented(name)}={_indented(as_text(entry.fields[name]))}" for name in entry.extra_fields)
    parts = [
        paint(entry.at.strftime("%H:%M:%S.") + f"{entry.at.microsecond // 1000:03d}", "2"),
        paint(f"{LEVEL_NAMES.get(entry.level, 'info'):8}", _COLOURS.get(entry.level, "0")),
        paint(f"{_head(entry):20}", "36"),
        paint(_indented(entry.message), "1" if entry.level >= WARNING else "0"),
        paint(" ".join(extra), "2"),
    ]
    lines = [" ".join(part for part in parts if part)]
    lines += (_INDENT[1:] + _indented(as_text(entry.fields[name])) for name in _BELOW if entry.fields.get(name))
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _head(entry: Rendered) -> str:
    # The message of a worker's own event begins with the event; the worker's name is what helps.
    worker = entry.fields.get("worker")
    is_workers_own = entry.message.startswith(entry.event)
    if is_workers_own:
        return printable(str(worker)) if worker else ""
    return printable(entry.event)


def _indented(text: str) -> str:
    return printable(text.rstrip("\n")).replace("\n", _INDENT)
