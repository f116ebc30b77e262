"""Where entries go and in which form: chosen from the format and from what stderr is."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, NamedTuple, Protocol

from supervisor.journal.native import SOCKET_PATH, JournalSocket, encode_native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.journal.entry import Rendered

_STDOUT, _STDERR = 1, 2


class Place(Protocol):
    """Something that takes whole entries, one at a time."""

    def write(self, data: bytes) -> None:
        """Write one entry in full; may block, for only the writer's thread waits.

        Raises:
            OSError: It cannot be written now; the same data may be offered again.
        """

    def close(self) -> None:
        """Let go of what it holds."""


class Outlet(NamedTuple):
    """A form and a place."""

    encode: Callable[[Rendered], bytes]
    place: Place


class Stream:
    """A file descriptor that others opened: stderr."""

    def __init__(self, descriptor: int = _STDERR) -> None:
        self._descriptor = descriptor
        # What was offered last, and what of it is still to be written.
        self._offered = self._rest = b""

    def write(self, data: bytes) -> None:
        """Write all of `data`; after an error the rest of it follows when the same data is offered again."""
        # The descriptor may be non-blocking (whoever shares the terminal decides) and a disk may fill up in mid-line.
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
        """Nothing: the descriptor is not ours."""


def choose_outlet(log_format: str, environ: Mapping[str, str], *, socket_path: str = SOCKET_PATH) -> Outlet:
    """Return where entries go.

    Args:
        log_format: `auto`, `journal`, `terminal` or `json`.
        environ: Looked at for JOURNAL_STREAM and NO_COLOR.
        socket_path: Where journald listens.
    """
    if log_format == "auto":
        log_format = _recognise(environ)
    if log_format == "journal" and os.path.exists(socket_path):  # noqa: PTH110 - pathlib costs start-up time
        return Outlet(encode_native, JournalSocket(socket_path))
    if log_format == "terminal":
        from supervisor.journal.terminal import encode_coloured, encode_plain  # noqa: PLC0415 - only one is needed

        coloured = _is_terminal() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return Outlet(encode_coloured if coloured else encode_plain, Stream())
    from supervisor.journal.lines import encode_line  # noqa: PLC0415 - only one is needed

    return Outlet(encode_line, Stream())


def hold_standard_streams() -> None:
    """Put /dev/null in the place of a closed stdin, stdout or stderr, before anything else takes its number.

    Otherwise what is written to stderr would one day go to the event loop's or the database's descriptor.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _recognise(environ: Mapping[str, str]) -> str:
    # The variable may be inherited by a process whose stderr is something else: only a match counts.
    stream = environ.get("JOURNAL_STREAM")
    if stream and stream in (_identity(_STDERR), _identity(_STDOUT) if _leads_nowhere() else None):
        return "journal"
    return "terminal" if _is_terminal() else "json"


def _identity(descriptor: int) -> str | None:
    """Return a descriptor as JOURNAL_STREAM would name it; None: it is closed."""
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return None
    return f"{stat.st_dev}:{stat.st_ino}"


def _leads_nowhere() -> bool:
    """Whether nobody would ever see what is written to stderr."""
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
