"""The interpreter's own end: it waits for every thread and exit handler that workers left, so it gets a deadline."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supervisor.exit_status import ExitStatus
    from supervisor.journal import Journal

_FLUSH_S = 1.0
# For exit handlers of workers that have something to put in order, and for threads that are about to end.
_LIMIT_S = 1.0
_decided: list[ExitStatus] = []


def close_last(journal: Journal) -> None:
    """Close the journal at exit, after the exit handlers of workers: those are registered later and run earlier."""
    atexit.register(_end, journal)


def _end(journal: Journal) -> None:
    """Close the journal and end here: taking the interpreter apart takes longer than the whole stop."""
    _close(journal)
    if _decided:
        os._exit(_decided[-1])


def guard_exit(status: ExitStatus, journal: Journal) -> None:
    """Let the interpreter end as it does, exit handlers and all, but end the process when that takes too long."""
    _decided.append(status)

    def watch() -> None:
        # Nobody sets it: this thread ends with the process.
        threading.Event().wait(_LIMIT_S)
        part, stack = _culprits()
        log_event("stop.overdue", part=part, limit_s=_LIMIT_S, stack=stack)
        exit_now(status, journal)

    threading.Thread(target=watch, name="exit guard", daemon=True).start()


def exit_now(status: ExitStatus, journal: Journal) -> NoReturn:
    """End the process at once, with nothing but the journal written out."""
    _close(journal)
    os._exit(status)


def _close(journal: Journal) -> None:
    journal.close(_FLUSH_S)
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, OSError, ValueError):
            # The interpreter would try again, fail, and make 120 of the exit status.
            setattr(sys, name, None)


def _culprits() -> tuple[str, str]:
    """Return what keeps the interpreter from ending, and where it stands."""
    held = [*_held_threads()]
    names = ", ".join(f"thread {thread.name}" for thread in held) or "Python's exit handlers"
    places = [_stack(thread) for thread in held or [threading.main_thread()]]
    return names, "\n\n".join(places)


def _held_threads() -> Iterator[threading.Thread]:
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            yield thread


def _stack(thread: threading.Thread) -> str:
    import traceback  # noqa: PLC0415 - only when something is wrong

    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented, in spite of its name
    with contextlib.suppress(OSError):
        return "".join(traceback.format_stack(frame)[-25:]).rstrip() if frame is not None else ""
    return ""
