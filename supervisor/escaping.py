"""Text that is safe to show: no control characters, one line, ISO times; and the walk over an exception's causes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# Everything but tab and newline; U+2028 and U+2029 break lines in some viewers.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# More than any program wraps; a bound all the same, because the event loop waits.
_MAX_CHAIN = 10_000


def printable(text: str) -> str:
    r"""Return `text` with control characters as `\x1b`; tabs and newlines stay."""
    return _CONTROL.sub(_escape, text)


def printable_line(text: str) -> str:
    """Return `text` with everything escaped that a terminal could choke on or obey, line breaks included."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def encodable(text: str) -> str:
    """Return `text` with control characters and lone surrogates escaped: PostgreSQL and UTF-8 take it."""
    return printable(text).encode("utf-8", "backslashreplace").decode()


def message_of(error: BaseException) -> str:
    """Return an exception's message as one line; empty when it has none."""
    try:
        return " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a worker's own exception may do anything, even in __str__
        return "(message could not be formatted)"


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that `error` carries, if any."""
    try:
        sqlstate = getattr(error, "sqlstate", None)
    except Exception:  # noqa: BLE001 - as above
        return None
    return sqlstate if isinstance(sqlstate, str) else None


def exception_chain(
    error: BaseException, *, limit: int = _MAX_CHAIN, suppressed: bool = True
) -> Iterator[BaseException]:
    """Yield an exception and everything behind it: causes, contexts, and the members of groups, each once.

    Args:
        error: Where to begin.
        limit: How many at most.
        suppressed: With the contexts that a traceback does not show, as after `raise … from None`.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < limit:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        context = current.__context__ if suppressed or not current.__suppress_context__ else None
        waiting.extend(link for link in (current.__cause__, context) if link is not None)


def isoformat(time: datetime | None) -> str | None:
    """Return a time as ISO 8601 with milliseconds; None stays None."""
    return None if time is None else time.isoformat(timespec="milliseconds")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
