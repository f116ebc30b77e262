"""What others say: Python's logging, warnings and uncaught exceptions go into the same journal."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from supervisor.journal.events import CRITICAL, DEBUG, ERROR, EVENTS, INFO, WARNING
from supervisor.journal.journal import flush_journal, log_event, say
from supervisor.journal.value import safe_text

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

# While the server is away asyncpg's pool reports each connection that it cannot replace; the gate says it once.
_QUIET_LOGGERS = ("asyncpg.pool",)
_LAST_WORD_S = 1.0

# Set in a worker's task: what a library says there carries the worker's name.
current_worker: ContextVar[str | None] = ContextVar("current_worker", default=None)

# What release_logging puts back.
_before: tuple[Any, ...] | None = None


class JournalHandler(logging.Handler):
    """The root logger's only handler."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record as `library.logged`; whatever is wrong with it, nothing is raised."""
        try:
            _say_record(record)
        except Exception:  # noqa: BLE001 - a library's log call must not fail because of us
            say(EVENTS["library.logged"], "library.logged", WARNING, {"logger": record.name, "text": "unreadable"})


def take_over_logging(threshold: int) -> None:
    """Send everything here; `release_logging` undoes it. What is printed goes past the journal, but line by line."""
    global _before  # noqa: PLW0603 - Python's logging and hooks are the process's, too
    release_logging()
    root = logging.getLogger()
    _before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    root.handlers[:] = [JournalHandler()]
    follow_level(threshold)
    logging.captureWarnings(True)
    with suppress(AttributeError, ValueError, OSError):  # stdout may be closed, or somebody's own
        # A print() that waits for 8 KiB more of its kind is seen long after what it was about.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def follow_level(threshold: int) -> None:
    """Let libraries skip what would not be said."""
    logging.getLogger().setLevel(threshold)


def release_logging() -> None:
    """Put back what there was before `take_over_logging`."""
    global _before  # noqa: PLW0603 - as above
    if _before is None:
        return
    root = logging.getLogger()
    root.handlers[:], level, sys.excepthook, threading.excepthook, sys.unraisablehook = _before
    root.setLevel(level)
    logging.captureWarnings(False)
    _before = None


def journal_asyncio_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what the event loop could not give to anybody; made for `loop.set_exception_handler`."""
    del loop
    exc = context.get("exception")
    text = context.get("message", "unhandled exception in the event loop")
    about = {name: value for name, value in context.items() if name not in ("message", "exception")}
    fields = {"logger": "asyncio", "text": text, "place": text, **about}
    say(EVENTS["library.logged"], "library.logged", ERROR, fields, exc)


def _say_record(record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - wrong arguments for its own template
        text = f"{safe_text(record.msg)} {safe_text(record.args)}"
    level = _level_of(record.levelno)
    if record.name.startswith(_QUIET_LOGGERS):
        level = DEBUG
    exc = record.exc_info[1] if record.exc_info else None
    # The place of the call keeps two warnings of one library apart.
    place = f"{record.pathname}:{record.lineno} {record.funcName}"
    if record.name == "py.warnings":
        # All of them are logged from one line of Python's own; each text begins with where it came from.
        place = text.partition("\n")[0]
    fields: dict[str, object] = {"logger": record.name, "text": text, "place": place}
    if worker := current_worker.get():
        fields["worker"] = worker
    say(EVENTS["library.logged"], "library.logged", level, fields, exc)


def _level_of(number: int) -> int:
    return next((level for level in (CRITICAL, ERROR, WARNING, INFO) if number >= level), DEBUG)


def _uncaught(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
        return
    log_event("daemon.failed", exc=exc)
    flush_journal(_LAST_WORD_S)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "a thread"
    fields: dict[str, object] = {"logger": "threading", "text": f"{name} ended with an exception"}
    say(EVENTS["library.logged"], "library.logged", ERROR, fields, args.exc_value)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    text = f"{args.err_msg or 'Exception ignored in'}: {safe_text(args.object, 200)}"
    say(EVENTS["library.logged"], "library.logged", ERROR, {"logger": "python", "text": text}, args.exc_value)
