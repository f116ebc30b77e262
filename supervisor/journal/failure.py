"""An exception as fields of an entry: error_type, error, sqlstate, place, traceback."""

from __future__ import annotations

from traceback import TracebackException
from typing import TYPE_CHECKING

from supervisor.journal.value import LIMIT, OVERLAP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from supervisor.journal.value import Value

_MOST_FRAMES = 100
_LONGEST_CHAIN = 20
_OWN_CODE = __file__.rpartition("journal")[0]


def describe_failure(exc: BaseException) -> dict[str, Value]:
    """Return what can be known of an exception at little cost.

    A group of one is described by what it holds: `unhandled errors in a TaskGroup` helps nobody.
    """
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    fields: dict[str, Value] = {"error_type": _type_name(exc), "error": _message(exc)}
    if sqlstate := _sqlstate(exc):
        fields["sqlstate"] = sqlstate
    if place := _place(exc):
        fields["place"] = place
    return fields


def capture_traceback(exc: BaseException) -> TracebackException | str:
    """Return the traceback without holding on to frames; the writer formats it, for that reads source files."""
    try:
        if sum(1 for _ in _chain(exc)) >= _LONGEST_CHAIN:
            # A loop that raises in its own handlers drags a chain of thousands behind itself.
            return "".join(_format_alone(exc))
        return TracebackException(type(exc), exc, _from_users_code(exc), limit=-_MOST_FRAMES, compact=True)
    except BaseException as fault:  # noqa: BLE001 - the exception is a worker's own and may do anything
        return f"<traceback that cannot be shown: {type(fault).__name__}>"


def format_traceback(captured: TracebackException | str) -> str:
    """Return the text of a captured traceback."""
    if isinstance(captured, str):
        return captured
    try:
        text = "".join(captured.format()).rstrip("\n")
    except Exception as fault:  # noqa: BLE001 - as above
        return f"<traceback that cannot be shown: {type(fault).__name__}>"
    # The end says most: the innermost frames and the error itself.
    return text if len(text) <= LIMIT else "…" + text[-LIMIT:]


def _from_users_code(exc: BaseException) -> TracebackType | None:
    """Return the traceback without the daemon's own frames around a worker; a fault of the daemon keeps them all."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        trace = trace.tb_next
    return trace or exc.__traceback__


def _chain(exc: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = exc
    for _ in range(_LONGEST_CHAIN):
        if following is None:
            return
        yield following
        following = following.__cause__ or following.__context__


def _format_alone(exc: BaseException) -> Iterator[str]:
    from traceback import format_tb  # noqa: PLC0415 - a rare path

    yield f"(after at least {_LONGEST_CHAIN} others)\nTraceback (most recent call last):\n"
    yield from format_tb(exc.__traceback__, limit=-_MOST_FRAMES)
    yield f"{_type_name(exc)}: {_message(exc)}"


def _type_name(exc: BaseException) -> str:
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(exc: BaseException) -> str:
    try:
        text = str.__str__(str(exc))[: LIMIT + OVERLAP]
    except BaseException as fault:  # noqa: BLE001 - as above
        return f"<message that cannot be shown: {type(fault).__name__}>"
    return text or type(exc).__qualname__


def _sqlstate(exc: BaseException) -> str | None:
    try:
        sqlstate = getattr(exc, "sqlstate", None)
    except Exception:  # noqa: BLE001 - as above
        return None
    return sqlstate if isinstance(sqlstate, str) else None


def _place(exc: BaseException) -> str | None:
    trace = exc.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} {code.co_name}"
