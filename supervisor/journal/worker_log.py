"""The logger of a worker: structlog's interface, bound to the worker's name; it never raises."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import structlog

from supervisor.journal.events import CRITICAL, DEBUG, ERROR, INFO, LEVELS, WARNING
from supervisor.journal.fields import LIMIT, journald_name, safe_text, safe_value
from supervisor.journal.journal import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# Names that an entry has of its own; a worker's field of that name gets a `_` behind it.
_RESERVED = frozenset({
    "message", "priority", "event", "message_id", "syslog_identifier", "ts", "level", "traceback", "place",
})  # fmt: skip
_OF_FAILURE = frozenset({"error_type", "error", "sqlstate"})
_NUMBERS = {**LEVELS, "warn": WARNING, "err": ERROR, "fatal": CRITICAL, "exception": ERROR}


def _logs(level: int, **defaults: object) -> Callable[..., None]:
    def log(self: WorkerLogger, event: object = "", /, *args: object, **fields: Any) -> None:
        self._emit(level, event, args, {**defaults, **fields})

    return log


def _logs_async(level: int, **defaults: object) -> Callable[..., Coroutine[Any, Any, None]]:
    # Nothing here waits, so the forms for coroutines do the same.
    async def log(self: WorkerLogger, event: object = "", /, *args: object, **fields: Any) -> None:
        self._emit(level, event, args, {**defaults, **fields})

    return log


class WorkerLogger(structlog.BoundLoggerBase):
    """structlog's interface: `bind`, `unbind`, `new`, `info("event", key=value)`, `exception(…)`, `ainfo(…)`.

    Not made by `structlog.make_filtering_bound_logger`: a wrong template would raise into the worker there, and its
    forms for coroutines start threads.
    """

    debug, adebug = _logs(DEBUG), _logs_async(DEBUG)
    info, ainfo = _logs(INFO), _logs_async(INFO)
    warning, awarning = _logs(WARNING), _logs_async(WARNING)
    error, aerror = _logs(ERROR), _logs_async(ERROR)
    critical, acritical = _logs(CRITICAL), _logs_async(CRITICAL)
    exception, aexception = _logs(ERROR, exc_info=True), _logs_async(ERROR, exc_info=True)
    msg, warn, err, fatal = info, warning, error, critical

    def log(self, level: int | str, event: object = "", /, *args: object, **fields: Any) -> None:
        """Log at a level given by name or by logging's number."""
        number = level if isinstance(level, int) else _NUMBERS.get(str(level).lower(), INFO)
        known = next((known for known in (CRITICAL, ERROR, WARNING, INFO) if number >= known), DEBUG)
        self._emit(known, event, args, fields)

    def _emit(self, level: int, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        try:
            exc = _exception(fields.pop("exc_info", None))
            bound = structlog.contextvars.get_contextvars()
            known = {**bound, **self._context, **fields}
            emit(
                None,
                _text(event, args),
                level,
                _renamed(known, self._context.get("worker"), failed=exc is not None),
                exc,
            )
        except Exception:  # noqa: BLE001 - a log call never fails
            emit(None, "unreadable entry", level, {"worker": self._context.get("worker")})


def worker_logger(worker: str) -> WorkerLogger:
    """Return a worker's own logger; making one costs a microsecond."""
    return WorkerLogger(None, (), {"worker": worker})


def configure_structlog() -> None:
    """Send what users log through `structlog.get_logger()` the same way."""
    structlog.configure(
        processors=[],
        wrapper_class=WorkerLogger,
        context_class=dict,
        logger_factory=_no_logger,
        cache_logger_on_first_use=True,
    )


def _no_logger(*args: object) -> None:
    del args


def _exception(given: object) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple) and len(given) == 3:
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None


def _text(event: object, args: tuple[object, ...]) -> str:
    text = safe_text(event, LIMIT)
    if not args:
        return text
    try:
        # As structlog does it: one mapping, or positions.
        if len(args) == 1 and isinstance(args[0], dict):
            return (text % {name: safe_value(value) for name, value in args[0].items()})[:LIMIT]
        return (text % tuple(map(safe_value, args)))[:LIMIT]
    except Exception:  # noqa: BLE001 - a wrong template is shown, not raised
        return f"{text} {safe_text(args)}"


def _renamed(fields: dict[Any, Any], worker: str | None, *, failed: bool) -> dict[Any, object]:
    own = {_own_name(name, failed=failed): value for name, value in fields.items()}
    if worker is not None and own.get("worker") != worker:
        own["worker_"], own["worker"] = own["worker"], worker
    return own


def _own_name(name: object, *, failed: bool) -> str:
    """Return the name that a worker's field gets: compared as it will be written, whatever its case."""
    text = name if type(name) is str else safe_text(name, 64)
    plain = journald_name(text[:64]).lower()
    is_taken = plain in _RESERVED or (failed and plain in _OF_FAILURE) or (plain == "worker" and text != plain)
    return f"{plain}_" if is_taken else text
