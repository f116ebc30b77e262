"""Python's logging, warnings and uncaught exceptions go into the same journal."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from supervisor.journal.events import CRITICAL, DEBUG, ERROR, EVENTS, INFO, WARNING
from supervisor.journal.fields import safe_text
from supervisor.journal.journal import emit, flush_journal, log_event

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

# During an outage asyncpg's pool reports each connection that it cannot replace; the daemon logs the outage once.
_QUIET_LOGGERS = ("asyncpg.pool",)
_FLUSH_S = 1.0

# Set in a worker's task: what a library logs there carries the worker's name.
current_worker: ContextVar[str | None] = ContextVar("current_worker", default=None)

# What restore_logging puts back.
_before: tuple[Any, ...] | None = None


class JournalHandler(logging.Handler):
    """The root logger's only handler."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record as `library.logged`; whatever is wrong with it, nothing is raised."""
        try:
            _emit_record(record)
        except Exception:  # noqa: BLE001 - a library's log call must not fail because of us
            emit(EVENTS["library.logged"], "library.logged", WARNING, {"logger": record.name, "text": "unreadable"})


def capture_logging(threshold: int) -> None:
    """Send everything to the journal until `restore_logging`. What is printed goes past it, but line by line."""
    global _before  # noqa: PLW0603 - Python's logging and hooks are the process's, too
    restore_logging()
    root = logging.getLogger()
    _before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    root.handlers[:] = [JournalHandler()]
    set_root_level(threshold)
    logging.captureWarnings(True)
    with suppress(AttributeError, ValueError, OSError):  # stdout may be closed, or replaced
        # A print() that waits in a buffer of 8 KiB is seen long after its cause.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def set_root_level(threshold: int) -> None:
    """Let libraries skip what would not be written."""
    logging.getLogger().setLevel(threshold)


def restore_logging() -> None:
    """Put back what there was before `capture_logging`."""
    global _before  # noqa: PLW0603 - as above
    if _before is None:
        return
    root = logging.getLogger()
    root.handlers[:], level, sys.excepthook, threading.excepthook, sys.unraisablehook = _before
    root.setLevel(level)
    logging.captureWarnings(False)
    _before = None


def journal_asyncio_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no task or callback took; made for `loop.set_exception_handler`."""
    del loop
    exc = context.get("exception")
    text = context.get("message", "unhandled exception in the event loop")
    about = {name: value for name, value in context.items() if name not in ("message", "exception")}
    fields = {"logger": "asyncio", "text": text, "place": text, **about}
    emit(EVENTS["library.logged"], "library.logged", ERROR, fields, exc)


def _emit_record(record: logging.LogRecord) -> None:
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
    emit(EVENTS["library.logged"], "library.logged", level, fields, exc)


def _level_of(number: int) -> int:
    return next((level for level in (CRITICAL, ERROR, WARNING, INFO) if number >= level), DEBUG)


def _uncaught(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
        return
    log_event("daemon.failed", exc=exc)
    flush_journal(_FLUSH_S)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "a thread"
    fields: dict[str, object] = {"logger": "threading", "text": f"{name} ended with an exception"}
    emit(EVENTS["library.logged"], "library.logged", ERROR, fields, args.exc_value)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    text = f"{args.err_msg or 'Exception ignored in'}: {safe_text(args.object, 200)}"
    emit(EVENTS["library.logged"], "library.logged", ERROR, {"logger": "python", "text": text}, args.exc_value)
