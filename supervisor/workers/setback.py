"""What follows when a batch could not be applied; pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from supervisor.backoff import Backoff, delay_s
from supervisor.errors import TransactionMisused
from supervisor.escaping import sqlstate_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# An event that fails is tried so often again, alone, before it counts as poison: the cause may lie outside.
TRIES_ALONE = 3
# What passes by itself usually has by then; from there on it is the restart policy's business.
TRIES_TRANSIENT = 10
# A handler may be the one that has its connection ended, by what it does to the server.
TRIES_CUT = 3
_ALONE = Backoff(initial_s=0.1, factor=4.0, max_s=5.0, jitter="none")
_TRANSIENT = Backoff(initial_s=0.05, factor=2.0, max_s=5.0)

# serialization_failure, deadlock_detected and their kin; lock_not_available; io_error; no more of something (disk,
# memory, connections).
_PASSES = ("40", "53")
_PASSES_TOO = frozenset({"55P03", "58030"})
# The handler has set it, or a standby is asked to write: no event's fault.
_READ_ONLY = "25006"
_LOOKED_THROUGH = 1_000


class Cause(Enum):
    """Why a batch was not applied; one member for each reaction."""

    OUTAGE = "the database is away"
    MISUSE = "the handler did with the transaction what it must not, or could not write at all"
    TRANSIENT = "it passes by itself"
    CUT = "the connection was ended"
    HANDLER = "the handler cannot apply it"
    READING = "the events could not even be read"


class Tries(NamedTuple):
    """What has been tried since a batch was last applied.

    Attributes:
        alone: How often an event failed alone.
        transient: How often something was in the way that passes by itself.
        cut: How often the connection was ended.
    """

    alone: int = 0
    transient: int = 0
    cut: int = 0


class Again(NamedTuple):
    """Try the same again when `delay_s` has passed."""

    delay_s: float


class Halve(NamedTuple):
    """Try again with at most `size` events."""

    size: int


class Poison(NamedTuple):
    """This one event cannot be applied."""


class GiveUp(NamedTuple):
    """End the run with the error."""


Decision = Again | Halve | Poison | GiveUp


def cause_of(error: BaseException, *, is_outage: bool, is_cut: bool, is_handlers: bool) -> Cause:
    """Return why a batch was not applied.

    Args:
        error: What was raised.
        is_outage: Whether an outage explains it.
        is_cut: Whether the connection did not survive.
        is_handlers: Whether the handler had begun.
    """
    if is_outage:
        return Cause.OUTAGE
    links = list(_links(error))
    if any(isinstance(link, TransactionMisused) or sqlstate_of(link) == _READ_ONLY for link in links):
        return Cause.MISUSE
    if any(_passes(sqlstate_of(link)) for link in links):
        return Cause.TRANSIENT
    if is_cut:
        return Cause.CUT
    return Cause.HANDLER if is_handlers else Cause.READING


def judge(cause: Cause, tries: Tries, *, count: int, sample: float) -> tuple[Decision, Tries]:
    """Decide what follows, and return it with what has been tried by then.

    Args:
        cause: Why the batch was not applied.
        tries: What was tried before.
        count: How many events the handler was given; 0: it had not begun.
        sample: A number drawn evenly from [0, 1), for the jitter.
    """
    match cause:
        case Cause.OUTAGE | Cause.MISUSE | Cause.READING:
            return GiveUp(), tries
        case Cause.TRANSIENT:
            if tries.transient >= TRIES_TRANSIENT:
                return GiveUp(), tries
            again = Again(delay_s(_TRANSIENT, tries.transient, sample))
            return again, tries._replace(transient=tries.transient + 1)
        case Cause.CUT:
            if tries.cut < TRIES_CUT:
                return Again(delay_s(_TRANSIENT, tries.cut, sample)), tries._replace(cut=tries.cut + 1)
            return _split(tries, count) if count else (GiveUp(), tries)
        case Cause.HANDLER:
            return _split(tries, count)


def _split(tries: Tries, count: int) -> tuple[Decision, Tries]:
    if count > 1:
        return Halve(count // 2), tries
    if tries.alone >= TRIES_ALONE:
        return Poison(), tries
    return Again(delay_s(_ALONE, tries.alone, 0.0)), tries._replace(alone=tries.alone + 1)


def grown(size: int, batch: int) -> int:
    """Return how many events to try next after `size` went well: back to a whole batch, step by step."""
    return min(batch, size * 2)


def _passes(sqlstate: str | None) -> bool:
    return sqlstate is not None and (sqlstate.startswith(_PASSES) or sqlstate in _PASSES_TOO)


def _links(error: BaseException) -> Iterator[BaseException]:
    """Return an error and what it came from: workers wrap what they catch, and task groups what they hold."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < _LOOKED_THROUGH:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        waiting.extend(link for link in (current.__cause__, current.__context__) if link is not None)
