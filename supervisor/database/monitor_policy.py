"""The connection monitor's decisions: pure functions over events, the time and a sample.

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
proven itself (`is_stable`), the next loss continues the same outage with the same grown delays and
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
    """The state of the connection monitor."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    CLOSED = "closed"


FIRST_REMINDER_AFTER_S = 15.0
START_REMINDER_AFTER_S = 1.0
STABLE_AFTER_S = 10.0
STABLE_WITHOUT_WORK_AFTER_S = 60.0
DROPPED_MAX_S = 5.0
FIRST_PROBE_AFTER_S = 0.1
FIRST_RETRY_S = 0.15
PROBES_PER_ELAPSED = 0.4
PROBE_SLACK = 1.5
# The end of a recovery that held for this long is news; of a server that flaps for hours, only the first ones are.
NEWSWORTHY_UP_S = 3.0
MAX_LOGGED_RELAPSES = 3
NEEDS_OPERATOR = (
    ErrorClass.ACCESS_DENIED,
    ErrorClass.TOO_MANY_CONNECTIONS,
    ErrorClass.NOT_POSTGRES,
    ErrorClass.MISCONFIGURED,
)


class Outage(NamedTuple):
    """A time without a usable database, from its beginning on.

    Attributes:
        since_s: When it began.
        attempts: Full attempts that count against a limit (a server that is coming costs none).
        failures: Failed attempts by class; each class grows its own delays.
        flaps: Recoveries that did not last.
        carried_failures: Failed attempts of the outage before, whose recovery was not stable: delays continue there.
        relapses: Outages just before, each logged, whose recoveries were not stable.
        was_logged: Whether the journal has it.
        next_log_s: When it is logged again.
        log_interval_s: The interval before that; it doubles.
    """

    since_s: float
    attempts: int = 0
    failures: Mapping[ErrorClass, int] = MappingProxyType({})
    flaps: int = 0
    carried_failures: int = 0
    relapses: int = 0
    was_logged: bool = False
    next_log_s: float = 0.0
    log_interval_s: float = FIRST_REMINDER_AFTER_S


def begin_outage(now_s: float) -> Outage:
    """Return an outage that begins now; its first reminder is due after a while."""
    return Outage(since_s=now_s, next_log_s=now_s + FIRST_REMINDER_AFTER_S)


def begin_start(now_s: float) -> Outage:
    """Return the time before the first connection, as an outage whose cause is logged after a second.

    An operator watches a start that has to wait; a start just before its server needs no entry.
    """
    return begin_outage(now_s)._replace(
        next_log_s=now_s + START_REMINDER_AFTER_S, log_interval_s=FIRST_REMINDER_AFTER_S / 2
    )


def outage_after_loss(outage: Outage | None, now_s: float, *, up_for_s: float, cause: ErrorClass) -> Outage:
    """Return the outage that a loss begins or, after a recovery that did not last, goes on with.

    Args:
        outage: The outage before, until its recovery is stable.
        now_s: When the loss was found.
        up_for_s: How long the recovery lasted.
        cause: What the loss is put down to.
    """
    if outage is None:
        return begin_outage(now_s)._replace(was_logged=True)
    is_new_cause = cause in NEEDS_OPERATOR and cause not in outage.failures
    is_news = outage.relapses < MAX_LOGGED_RELAPSES and (up_for_s >= NEWSWORTHY_UP_S or is_new_cause)
    if outage.was_logged and not is_news:
        return outage._replace(flaps=outage.flaps + 1)
    # The delays continue, but the database was up: the time, the attempts and the entries of this outage begin now.
    carried_failures = outage.carried_failures + sum(outage.failures.values())
    relapses = outage.relapses + (1 if outage.was_logged else 0)
    return begin_outage(now_s)._replace(was_logged=True, carried_failures=carried_failures, relapses=relapses)


def has_new_cause(outage: Outage, cause: ErrorClass) -> bool:
    """Whether the last failed attempt, counted already, is the first of a class that needs an operator."""
    return cause in NEEDS_OPERATOR and outage.failures.get(cause) == 1 and sum(outage.failures.values()) > 1


class Retry(NamedTuple):
    """Attempt again, at the latest after `delay_s`."""

    delay_s: float


class GiveUp(Enum):
    """No further attempt."""

    ATTEMPTS_USED_UP = "the attempts of this policy are used up"
    ACCESS_DENIED = "the server refuses the login, the database or a privilege, and the policy says that this is final"
    MISCONFIGURED = "the connection string cannot work: a fault of the configuration"


FailureDecision = Retry | GiveUp


def add_failure(outage: Outage, failure: Failure) -> Outage:
    """Return the outage with one more failed attempt in it.

    A server that says that it is starting up uses up no attempts: its recovery takes as long as it takes.
    """
    seen = failure.error_class
    return outage._replace(
        attempts=outage.attempts + (0 if _is_starting_up(seen) else 1),
        failures={**outage.failures, seen: outage.failures.get(seen, 0) + 1},
    )


def decide_after_failure(
    outage: Outage, failure: Failure, policy: ConnectPolicy, *, probe_interval_s: float, sample: float
) -> FailureDecision:
    """Decide what follows a failed attempt that `add_failure` has already counted.

    Args:
        outage: The outage with this failure in it.
        failure: What happened.
        policy: `[database.startup]` or `[database.runtime]`.
        probe_interval_s: How soon a server that is starting up is asked again.
        sample: A number drawn evenly from [0, 1).
    """
    if not policy.retry_refused and failure.error_class is ErrorClass.ACCESS_DENIED:
        return GiveUp.ACCESS_DENIED
    if not policy.retry_refused and failure.error_class is ErrorClass.MISCONFIGURED:
        return GiveUp.MISCONFIGURED
    if policy.attempts and outage.attempts >= policy.attempts and not _is_starting_up(failure.error_class):
        return GiveUp.ATTEMPTS_USED_UP
    grown = outage.failures.get(failure.error_class, 1) - 1 + outage.flaps + outage.carried_failures
    return Retry(_delay(failure.error_class, grown, policy.backoff, probe_interval_s, sample))


def _is_starting_up(error_class: ErrorClass) -> bool:
    return error_class in (ErrorClass.STARTING_UP, ErrorClass.READ_ONLY)


def _delay(error_class: ErrorClass, grown: int, backoff: Backoff, probe_interval_s: float, sample: float) -> float:
    match error_class:
        case ErrorClass.STARTING_UP | ErrorClass.READ_ONLY:
            # Steady after a few quick attempts (a restart takes a second), and jittered around the interval:
            # a thousand daemons must not ask at the same time.
            quick = Backoff(initial_s=FIRST_RETRY_S, factor=1.5, max_s=probe_interval_s, jitter="none")
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


def probe_delay_s(outage: Outage, *, now_s: float, due_s: float, probe_interval_s: float, sample: float) -> float:
    """Return how long to wait before the next probe, at the latest until the next attempt is due.

    A probe is cheap, so a young outage is probed often (a restart takes about a second) and an old one every
    `probe_interval_s`, with a little jitter so that many daemons do not probe in step. An attempt that is due soon
    replaces the probe.
    """
    elapsed_s = max(0.0, now_s - outage.since_s)
    interval_s = min(probe_interval_s, max(FIRST_PROBE_AFTER_S, elapsed_s * PROBES_PER_ELAPSED))
    probe_s = interval_s * (0.8 + 0.4 * sample)
    left_s = max(0.0, due_s - now_s)
    return left_s if left_s <= PROBE_SLACK * probe_s else probe_s


def next_reminder(outage: Outage, now_s: float) -> Outage | None:
    """Return the outage with its next reminder scheduled when one is due now, else None.

    The distances double, so the number of entries grows with the logarithm of the outage's length.
    """
    if now_s < outage.next_log_s:
        return None
    step_s = outage.log_interval_s * 2
    return outage._replace(next_log_s=now_s + step_s, log_interval_s=step_s)


def is_stable(up_for_s: float, *, has_worked: bool) -> bool:
    """Whether a connection has stayed up long enough, with work done on it, to forget the outage before.

    Where no worker uses the database, time alone decides.
    """
    return up_for_s >= (STABLE_AFTER_S if has_worked else STABLE_WITHOUT_WORK_AFTER_S)
