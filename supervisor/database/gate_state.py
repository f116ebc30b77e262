"""The gate's decisions: pure functions over what happened, the time and a sample.

The machine:

```text
                connected            lost, and a fresh connection fails too
   CONNECTING ─────────────▶ UP ───────────────────────────────────▶ DOWN
                             ▲                                         │
                             └─────────────────────────────────────────┘
                                              connected
   any ──close──▶ CLOSED
```

An outage is a value, `Outage`. It survives a recovery that did not last: until the connection has
proven itself (`is_proven`), the next loss continues the same outage with the same grown delays and
the same schedule of entries. Coder's retrier was reset by a check that passed before the real call
failed, and wrote 4,000 lines a second.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from supervisor.backoff import Backoff, delay_s
from supervisor.database.error_class import ErrorClass, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.config.model import ConnectPolicy


class MonitorState(Enum):
    """What the process knows of its database."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    CLOSED = "closed"


FIRST_TOLD_AFTER_S = 15.0
START_TOLD_AFTER_S = 1.0
PROVEN_AFTER_S = 10.0
PROVEN_WITHOUT_WORK_AFTER_S = 60.0
DROPPED_MAX_S = 5.0
FIRST_CHECK_AFTER_S = 0.1
FIRST_ASKED_AGAIN_S = 0.15
CHECKS_PER_ELAPSED = 0.4
SOON = 1.5
# A recovery that held for this long was one, and its end is news; of a server that flaps for hours, only at first.
CALM_S = 3.0
MOST_TOLD_RELAPSES = 3
NEEDS_A_PERSON = (
    ErrorClass.ACCESS_DENIED,
    ErrorClass.TOO_MANY_CONNECTIONS,
    ErrorClass.NOT_POSTGRES,
    ErrorClass.MISCONFIGURED,
)


class Outage(NamedTuple):
    """A time without a usable database, from its first moment on.

    Attributes:
        since_s: When it began.
        attempts: Full attempts that count against a limit (a server that is coming costs none).
        failures: Failed attempts by class; each class grows its own delays.
        flaps: Recoveries that did not last.
        wariness: Failed attempts just before, of a start that has not proven itself: delays go on from there.
        relapses: Outages just before, each told, whose recoveries did not prove themselves.
        is_told: Whether the journal knows of it.
        tell_at_s: When the journal hears of it again.
        tell_step_s: How long the silence before that was; it doubles.
    """

    since_s: float
    attempts: int = 0
    failures: Mapping[ErrorClass, int] = MappingProxyType({})
    flaps: int = 0
    wariness: int = 0
    relapses: int = 0
    is_told: bool = False
    tell_at_s: float = 0.0
    tell_step_s: float = FIRST_TOLD_AFTER_S


def begin_outage(now_s: float) -> Outage:
    """Return an outage that begins now; its first reminder is due after a while."""
    return Outage(since_s=now_s, tell_at_s=now_s + FIRST_TOLD_AFTER_S)


def begin_start(now_s: float) -> Outage:
    """Return the time before the first connection, as an outage whose cause is told after a second.

    A start that has to wait is watched by somebody; one that begins a moment before its server is not.
    """
    return begin_outage(now_s)._replace(tell_at_s=now_s + START_TOLD_AFTER_S, tell_step_s=FIRST_TOLD_AFTER_S / 2)


def lose(outage: Outage | None, now_s: float, *, up_for_s: float, cause: ErrorClass) -> Outage:
    """Return the outage that a loss begins or, after a recovery that did not last, goes on with.

    Args:
        outage: The one before, until its recovery has proven itself.
        now_s: When the loss was found.
        up_for_s: How long the recovery lasted.
        cause: What the loss is put down to.
    """
    if outage is None:
        return begin_outage(now_s)._replace(is_told=True)
    is_new_cause = cause in NEEDS_A_PERSON and cause not in outage.failures
    is_news = outage.relapses < MOST_TOLD_RELAPSES and (up_for_s >= CALM_S or is_new_cause)
    if outage.is_told and not is_news:
        return outage._replace(flaps=outage.flaps + 1)
    # Wary of it, but it was up: the time, the attempts and the entries of this outage begin now.
    wariness = outage.wariness + sum(outage.failures.values())
    relapses = outage.relapses + (1 if outage.is_told else 0)
    return begin_outage(now_s)._replace(is_told=True, wariness=wariness, relapses=relapses)


def has_new_cause(outage: Outage, cause: ErrorClass) -> bool:
    """Whether the last failed attempt, which is counted already, is the first of a kind that a person must mend."""
    return cause in NEEDS_A_PERSON and outage.failures.get(cause) == 1 and sum(outage.failures.values()) > 1


class TryAgain(NamedTuple):
    """Attempt again, at the latest after `delay_s`."""

    delay_s: float


class Final(Enum):
    """No further attempt."""

    GIVE_UP = "the attempts of this policy are used up"
    REFUSE = "the server will not have us, and the policy says that this is final"
    MISCONFIGURED = "the connection string cannot work: a fault of the configuration"


Verdict = TryAgain | Final


def count_failure(outage: Outage, failure: Failure) -> Outage:
    """Return the outage with one more failed attempt in it.

    A server that says that it is coming uses up no attempts: it may recover for as long as it likes.
    """
    seen = failure.error_class
    return outage._replace(
        attempts=outage.attempts + (0 if _is_coming(seen) else 1),
        failures={**outage.failures, seen: outage.failures.get(seen, 0) + 1},
    )


def judge_failure(
    outage: Outage, failure: Failure, policy: ConnectPolicy, *, probe_interval_s: float, sample: float
) -> Verdict:
    """Decide what follows a failed attempt that `count_failure` has already counted.

    Args:
        outage: The outage with this failure in it.
        failure: What happened.
        policy: `[database.startup]` or `[database.runtime]`.
        probe_interval_s: How soon a server that is coming is asked again.
        sample: A number drawn evenly from [0, 1).
    """
    if not policy.retry_refused and failure.error_class is ErrorClass.ACCESS_DENIED:
        return Final.REFUSE
    if not policy.retry_refused and failure.error_class is ErrorClass.MISCONFIGURED:
        return Final.MISCONFIGURED
    if policy.attempts and outage.attempts >= policy.attempts and not _is_coming(failure.error_class):
        return Final.GIVE_UP
    grown = outage.failures.get(failure.error_class, 1) - 1 + outage.flaps + outage.wariness
    return TryAgain(_delay(failure.error_class, grown, policy.backoff, probe_interval_s, sample))


def _is_coming(error_class: ErrorClass) -> bool:
    return error_class in (ErrorClass.STARTING_UP, ErrorClass.READ_ONLY)


def _delay(error_class: ErrorClass, grown: int, backoff: Backoff, probe_interval_s: float, sample: float) -> float:
    match error_class:
        case ErrorClass.STARTING_UP | ErrorClass.READ_ONLY:
            # Steady after a few quick questions (a restart takes a second), and jittered around the interval:
            # a thousand daemons ask at a thousand moments.
            quick = Backoff(initial_s=FIRST_ASKED_AGAIN_S, factor=1.5, max_s=probe_interval_s, jitter="none")
            return delay_s(quick, grown, sample) * (0.75 + 0.5 * sample)
        case ErrorClass.DROPPED:
            return delay_s(backoff._replace(max_s=min(backoff.max_s, DROPPED_MAX_S)), grown, sample)
        case (
            ErrorClass.NOT_LISTENING
            | ErrorClass.TIMED_OUT
            | ErrorClass.TOO_MANY_CONNECTIONS
            | ErrorClass.NOT_POSTGRES
            | ErrorClass.ACCESS_DENIED
            | ErrorClass.MISCONFIGURED
            | ErrorClass.UNRELATED
        ):
            return delay_s(backoff, grown, sample)


def check_delay(outage: Outage, *, now_s: float, due_s: float, probe_interval_s: float, sample: float) -> float:
    """Return when to look again whether anything listens, at the latest when the next attempt is due.

    Looking is cheap, so a young outage is looked at often (a restart takes about a second) and an old
    one at `probe_interval_s`, with a little jitter against marching in step. An attempt that is due
    soon is the better look.
    """
    elapsed_s = max(0.0, now_s - outage.since_s)
    interval_s = min(probe_interval_s, max(FIRST_CHECK_AFTER_S, elapsed_s * CHECKS_PER_ELAPSED))
    look_s = interval_s * (0.8 + 0.4 * sample)
    left_s = max(0.0, due_s - now_s)
    return left_s if left_s <= SOON * look_s else look_s


def remind(outage: Outage, now_s: float) -> Outage | None:
    """Return the outage with its next reminder scheduled when one is due now, else None.

    The distances double, so the number of entries grows with the logarithm of the outage's length.
    """
    if now_s < outage.tell_at_s:
        return None
    step_s = outage.tell_step_s * 2
    return outage._replace(tell_at_s=now_s + step_s, tell_step_s=step_s)


def is_proven(up_for_s: float, *, has_worked: bool) -> bool:
    """Whether a connection has stayed good long enough, with work done on it, to forget the outage before.

    Where no worker uses the database at all, nothing can be worked and time alone has to do.
    """
    return up_for_s >= (PROVEN_AFTER_S if has_worked else PROVEN_WITHOUT_WORK_AFTER_S)
