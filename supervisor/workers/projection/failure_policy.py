"""What follows when a batch could not be applied; pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from supervisor.backoff import Backoff, delay_s
from supervisor.errors import TransactionMisused
from supervisor.escaping import exception_chain, sqlstate_of

# An event that fails is retried so often, alone, before it counts as poison: the cause may lie elsewhere.
MAX_ALONE = 3
# A transient problem has usually passed by then; after that the restart policy decides.
MAX_TRANSIENT = 10
# The handler itself may cause the end of its connection, by what it does to the server.
MAX_CONNECTION_ENDED = 3
_ALONE = Backoff(initial_s=0.1, factor=4.0, max_s=5.0, jitter="none")
_TRANSIENT = Backoff(initial_s=0.05, factor=2.0, max_s=5.0)

# 40: serialization_failure, deadlock_detected and others. 53: out of disk space, memory or connections.
_TRANSIENT_CLASSES = ("40", "53")
# lock_not_available, io_error
_TRANSIENT_STATES = frozenset({"55P03", "58030"})
# The handler has set it, or the server is a standby: no event is the cause.
_READ_ONLY = "25006"


class FailureCause(Enum):
    """Why a batch was not applied; one member for each reaction."""

    OUTAGE = "the database is unreachable"
    MISUSE = "the handler misused the transaction, or could not write at all"
    TRANSIENT = "a problem that passes by itself"
    CONNECTION_ENDED = "the connection was ended"
    HANDLER = "the handler cannot apply it"
    READING = "the events could not be read"


class Attempts(NamedTuple):
    """The failed attempts since a batch was last applied.

    Attributes:
        alone: How often an event failed alone.
        transient: How often a transient problem was in the way.
        connection_ended: How often the connection was ended.
    """

    alone: int = 0
    transient: int = 0
    connection_ended: int = 0


class RetryAfter(NamedTuple):
    """Try the same again after `delay_s`."""

    delay_s: float


class RetrySmaller(NamedTuple):
    """Try again with at most `size` events."""

    size: int


class MarkPoison(NamedTuple):
    """This one event cannot be applied."""


class FailRun(NamedTuple):
    """End the run with the error."""


Decision = RetryAfter | RetrySmaller | MarkPoison | FailRun


def classify(error: BaseException, *, is_outage: bool, connection_ended: bool, handler_started: bool) -> FailureCause:
    """Return why a batch was not applied.

    Args:
        error: The exception.
        is_outage: Whether an outage explains it.
        connection_ended: Whether the connection was ended.
        handler_started: Whether the handler was called.
    """
    if is_outage:
        return FailureCause.OUTAGE
    chain = list(exception_chain(error))
    if any(isinstance(link, TransactionMisused) or sqlstate_of(link) == _READ_ONLY for link in chain):
        return FailureCause.MISUSE
    if any(_is_transient(sqlstate_of(link)) for link in chain):
        return FailureCause.TRANSIENT
    if connection_ended:
        return FailureCause.CONNECTION_ENDED
    return FailureCause.HANDLER if handler_started else FailureCause.READING


def decide(cause: FailureCause, attempts: Attempts, *, count: int, sample: float) -> tuple[Decision, Attempts]:
    """Decide what follows, and return it with the attempts up to now.

    Args:
        cause: Why the batch was not applied.
        attempts: The failed attempts before.
        count: How many events the handler was given; 0: it was not called.
        sample: A number drawn evenly from [0, 1), for the jitter.
    """
    match cause:
        case FailureCause.OUTAGE | FailureCause.MISUSE | FailureCause.READING:
            return FailRun(), attempts
        case FailureCause.TRANSIENT:
            if attempts.transient >= MAX_TRANSIENT:
                return FailRun(), attempts
            retry = RetryAfter(delay_s(_TRANSIENT, attempts.transient, sample))
            return retry, attempts._replace(transient=attempts.transient + 1)
        case FailureCause.CONNECTION_ENDED:
            if attempts.connection_ended < MAX_CONNECTION_ENDED:
                retry = RetryAfter(delay_s(_TRANSIENT, attempts.connection_ended, sample))
                return retry, attempts._replace(connection_ended=attempts.connection_ended + 1)
            return _split(attempts, count) if count else (FailRun(), attempts)
        case FailureCause.HANDLER:
            return _split(attempts, count)


def _split(attempts: Attempts, count: int) -> tuple[Decision, Attempts]:
    if count > 1:
        return RetrySmaller(count // 2), attempts
    if attempts.alone >= MAX_ALONE:
        return MarkPoison(), attempts
    return RetryAfter(delay_s(_ALONE, attempts.alone, 0.0)), attempts._replace(alone=attempts.alone + 1)


def next_batch_size(size: int, batch: int) -> int:
    """Return how many events to try after `size` were applied: back to a whole batch, step by step."""
    return min(batch, size * 2)


def _is_transient(sqlstate: str | None) -> bool:
    return sqlstate is not None and (sqlstate.startswith(_TRANSIENT_CLASSES) or sqlstate in _TRANSIENT_STATES)
