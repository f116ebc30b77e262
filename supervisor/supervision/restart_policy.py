"""What happens after a worker's run has ended: OTP's semantics with systemd's words.

Pure: the history goes in, the decision and the new history come out.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from supervisor.backoff import Backoff, bound, delay_s
from supervisor.config.kinds import kind_of

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec

# A run shorter than this proves nothing, whatever the backoff.
SUSTAINED_S = 10.0
# After an outage every instance may run again at once. Only an instance that ends again and again "because of an
# outage" while the database is up waits longer each time, up to the five seconds that a recovery may take.
_AFTER_OUTAGE = Backoff(initial_s=0.05, factor=2.0, max_s=5.0)


class RunOutcome(Enum):
    """How a run ended that nobody had asked to stop."""

    RETURNED = "returned"
    FAILED = "failed"
    OUTAGE = "outage"
    HALTED = "halted"
    SHARDING_CONFLICT = "sharding conflict"


class RestartHistory(NamedTuple):
    """What counts of an instance's past.

    Attributes:
        restarts_s: When it was restarted, within the window, oldest first.
        consecutive_failures: Runs in a row that ended and called for a backoff.
        consecutive_outages: Runs in a row that an outage ended.
        healthy_since_s: Since when nothing has gone wrong: the start of a service's run, a periodic
            worker's first successful tick; None: nothing has gone well yet.
    """

    restarts_s: tuple[float, ...] = ()
    consecutive_failures: int = 0
    consecutive_outages: int = 0
    healthy_since_s: float | None = None


# Named tuples and an enum: making a dataclass takes ten times as long, and each start of the daemon would pay for it.
class RestartAfter(NamedTuple):
    """Run again when `delay_s` has passed; `restarts` were made in the window, this one included."""

    delay_s: float
    restarts: int


class ResumeAfterOutage(NamedTuple):
    """Run again once the database is up and `delay_s` more have passed; nothing is counted."""

    delay_s: float


class Exhausted(NamedTuple):
    """One restart more than the policy allows: the instance is not run again."""

    restarts: int


class NoRestart(Enum):
    """The end of a run calls for no restart."""

    NEXT_TICK = "the tick went well: the next one comes when it is due"
    FINISHED = "the instance is not run again"
    FAILED = "the instance ended with an error, and is not run again"


Decision = RestartAfter | ResumeAfterOutage | NoRestart | Exhausted


def on_run_started(spec: WorkerSpec, history: RestartHistory, *, now_s: float) -> RestartHistory:
    """Return the history once a run has begun at `now_s`."""
    return history if kind_of(spec).runs_ticks else history._replace(healthy_since_s=now_s)


def decide_restart(
    spec: WorkerSpec, history: RestartHistory, outcome: RunOutcome, *, now_s: float, sample: float
) -> tuple[Decision, RestartHistory]:
    """Decide what follows a run's end.

    Args:
        spec: The worker, with its policy.
        history: The past, without this outcome.
        outcome: How the run ended.
        now_s: When it ended.
        sample: A number drawn evenly from [0, 1), for the jitter.
    """
    history = _reset_if_healthy(spec, history, now_s)
    match outcome:
        case RunOutcome.OUTAGE:
            resume = ResumeAfterOutage(delay_s(_AFTER_OUTAGE, history.consecutive_outages, sample))
            return resume, history._replace(consecutive_outages=history.consecutive_outages + 1)
        case RunOutcome.HALTED | RunOutcome.SHARDING_CONFLICT:
            # It would fail again each time, until somebody has acted, here or on another node.
            return NoRestart.FAILED, history
        case RunOutcome.FAILED:
            if spec.restart == "never":
                return NoRestart.FAILED, history
            return _restart(spec, history, now_s, sample)
        case RunOutcome.RETURNED:
            if kind_of(spec).runs_ticks:
                since_s = now_s if history.healthy_since_s is None else history.healthy_since_s
                return NoRestart.NEXT_TICK, history._replace(healthy_since_s=since_s)
            if spec.restart == "always":
                return _restart(spec, history, now_s, sample)
            return NoRestart.FINISHED, history


def _restart(spec: WorkerSpec, history: RestartHistory, now_s: float, sample: float) -> tuple[Decision, RestartHistory]:
    recent_s = tuple(at_s for at_s in history.restarts_s if now_s - at_s <= spec.window_s)
    if len(recent_s) >= spec.max_restarts:
        return Exhausted(len(recent_s)), history._replace(restarts_s=recent_s)
    failures = history.consecutive_failures
    restart = RestartAfter(delay_s(spec.backoff, failures, sample), restarts=len(recent_s) + 1)
    return restart, RestartHistory(
        restarts_s=(*recent_s, now_s),
        consecutive_failures=failures + 1,
        consecutive_outages=history.consecutive_outages,
    )


def _reset_if_healthy(spec: WorkerSpec, history: RestartHistory, now_s: float) -> RestartHistory:
    """Forget failures and outages if nothing has gone wrong for long enough.

    Merely starting proves nothing, and a run only as long as the backoff it caused would keep a
    worker that fails once a minute at its shortest delay for ever.
    """
    if history.healthy_since_s is None:
        return history
    healthy_s = now_s - history.healthy_since_s
    last = max(0, history.consecutive_failures - 1)
    is_sustained = healthy_s >= max(SUSTAINED_S, bound(spec.backoff, last))
    return history._replace(
        consecutive_failures=0 if is_sustained else history.consecutive_failures,
        consecutive_outages=0 if healthy_s >= SUSTAINED_S else history.consecutive_outages,
    )
