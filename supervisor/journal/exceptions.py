"""An exception as fields of an entry: error_type, error, sqlstate, place, traceback; as a key; and as one line.

`place` is the innermost frame of the user's code: below it are drivers and the standard library, where all errors look
the same. User code is everything but the standard library, installed packages, generated code and this package; an
installed package that the daemon called itself (a worker from site-packages) is the user's, too.

The key tells failures apart that have the same place: two statements that go through one helper, or two causes of one
wrapping exception.
"""

from __future__ import annotations

import os
from itertools import islice
from traceback import TracebackException, format_tb
from typing import TYPE_CHECKING

from supervisor.escaping import encodable, exception_chain, message_of, sqlstate_of
from supervisor.journal.fields import LIMIT, OVERLAP
from supervisor.journal.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from supervisor.journal.fields import Value

_MAX_FRAMES = 100
_MAX_CHAIN = 20
_MAX_PLACES = 3
_MAX_LINE = 300
_OWN_CODE = __file__.rpartition("journal")[0]
_STANDARD_LIBRARY = os.__file__.rpartition("/")[0] + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
_DRIVERS = frozenset({"asyncpg", "uvloop", "structlog"})  # the daemon calls these for itself

_OWN, _LIBRARY, _PACKAGE, _USER = 1, 2, 3, 4
_MAX_FILES = 4096
_origins: dict[str, int] = {}


def describe_exception(exc: BaseException) -> tuple[dict[str, Value], int]:
    """Return what can be known of an exception at little cost, and the key that equal failures share.

    A group of one is described by what it holds: `unhandled errors in a TaskGroup` helps nobody.
    """
    exc = _only_member(exc)
    error_type, sqlstate = _type_name(exc), sqlstate_of(exc)
    innermost, path = _trace_user_code(exc)
    fields: dict[str, Value] = {"error_type": error_type, "error": _message(exc)}
    if sqlstate:
        fields["sqlstate"] = sqlstate
    is_group = isinstance(exc, BaseExceptionGroup)
    place = _place(exc) if innermost is None or is_group else _format_place(innermost)
    if place:
        fields["place"] = place
    own = error_type, sqlstate, path
    if exc.__cause__ is None and exc.__context__ is None and not is_group:
        return fields, hash(own)
    # A set: tasks of a group fail in any order, and a chain may hold the same failure once more each time.
    links = exception_chain(exc, limit=_MAX_CHAIN, suppressed=False)
    others = ((_type_name(link), sqlstate_of(link), _trace_user_code(link)[1]) for link in links if link is not exc)
    return fields, hash(frozenset((own, *others)))


def one_line(exc: BaseException) -> str:
    """Return an exception as one short line without secrets, in letters that PostgreSQL takes."""
    exc = _only_member(exc)
    kind, text = type(exc).__qualname__, redact(message_of(exc))
    return encodable(f"{kind}: {text}" if text else kind)[:_MAX_LINE]


def capture_traceback(exc: BaseException) -> TracebackException | str:
    """Return the traceback without holding on to frames; the writer formats it, for that reads source files."""
    try:
        if _has_long_chain(exc):
            # A loop that raises in its own handlers drags a chain of thousands behind itself.
            return "".join(_format_alone(exc))
        return TracebackException(type(exc), exc, _below_the_daemon(exc), limit=-_MAX_FRAMES, compact=True)
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


def _only_member(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _below_the_daemon(exc: BaseException) -> TracebackType | None:
    """Return the traceback without the daemon's own frames around a worker; a fault of the daemon keeps them all."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        trace = trace.tb_next
    return trace or exc.__traceback__


def _has_long_chain(exc: BaseException) -> bool:
    following: BaseException | None = exc
    for _ in range(_MAX_CHAIN):
        if following is None:
            return False
        following = following.__cause__ or following.__context__
    return True


def _format_alone(exc: BaseException) -> Iterator[str]:
    yield f"(after at least {_MAX_CHAIN} others)\nTraceback (most recent call last):\n"
    yield from format_tb(exc.__traceback__, limit=-_MAX_FRAMES)
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


def _place(exc: BaseException) -> str | None:
    """Return where a group or an exception of others' code came from: a user's frame if there is any behind it.

    The members of a group count before the group itself: it is raised where the tasks were waited for, always the same.
    """
    if isinstance(exc, BaseExceptionGroup):
        members = islice(_leaves(exc), _MAX_PLACES)
        if places := dict.fromkeys(
            _format_place(trace) for member in members if (trace := _trace_user_code(member)[0])
        ):
            return ", ".join(places)
    # The daemon may have wrapped the user's exception after it left the user's code.
    for link in exception_chain(exc, limit=_MAX_CHAIN):
        if trace := _trace_user_code(link)[0]:
            return _format_place(trace)
    trace = exc.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return _format_place(trace)


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    waiting = [exc]
    for _ in range(_MAX_CHAIN):
        if not waiting:
            return
        member = waiting.pop(0)
        if isinstance(member, BaseExceptionGroup):
            waiting.extend(member.exceptions)
        else:
            yield member


def _trace_user_code(exc: BaseException) -> tuple[TracebackType | None, frozenset[int]]:
    """Return the innermost frame of the user's code, and which of its instructions the exception came through.

    An instruction's address in memory is cheaper than its line, for which Python searches a table. They are a set, so
    that a recursion has few paths, however deep it is.
    """
    path: set[int] = set()
    trace, innermost, entry = exc.__traceback__, None, None
    follows_daemon = False
    add = path.add
    while trace is not None:
        code = trace.tb_frame.f_code
        try:
            origin = _origins[code.co_filename]
        except KeyError:
            origin = _origin(code.co_filename)
        if origin == _USER:
            add(id(code) + trace.tb_lasti)
            innermost, follows_daemon = trace, False
        elif origin == _OWN:
            follows_daemon = True
        elif origin == _PACKAGE:
            package = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
            if follows_daemon and package not in _DRIVERS:
                entry = package
            if package == entry:
                add(id(code) + trace.tb_lasti)
                innermost = trace
            follows_daemon = False
        trace = trace.tb_next
    return innermost, frozenset(path)


def _origin(filename: str) -> int:
    if filename.startswith(_OWN_CODE):
        origin = _OWN
    elif not filename.endswith(".py"):
        origin = _LIBRARY  # <frozen importlib>, <string>, compiled code
    elif any(folder in filename for folder in _INSTALLED):
        origin = _PACKAGE
    else:
        origin = _LIBRARY if filename.startswith(_STANDARD_LIBRARY) else _USER
    if len(_origins) < _MAX_FILES:
        _origins[filename] = origin
    return origin


def _format_place(trace: TracebackType) -> str:
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} {code.co_name}"
