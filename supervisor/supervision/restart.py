"""What happens after a worker's run has ended: OTP's semantics with systemd's words.

Pure: the history goes in, the decision and the new history come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from supervisor.backoff import Backoff, bound, delay_s
from supervisor.config.model import Periodic

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec

# A run shorter than this proves nothing, whatever the backoff.
SUSTAINED_S = 10.0
# After an outage everybody may go on at once; only who ends again and again "because of an outage"
# while the gate says up waits longer and longer, up to the five seconds a recovery may take.
_AFTER_OUTAGE = Backoff(initial_s=0.05, factor=2.0, max_s=5.0)


class Ending(Enum):
    """How a run ended that nobody had told to end."""

    RETURNED = "returned"
    FAILED = "failed"
    OUTAGE = "outage"
    POISONED = "poisoned"
    DISPLACED = "displaced"


class History(NamedTuple):
    """What counts of a worker's past.

    Attributes:
        restarts_s: When it was restarted, within the window, oldest first.
        setbacks: Runs in a row that ended and called for a backoff.
        outages: Runs in a row that an outage ended.
        good_since_s: Since when nothing has gone wrong: the start of a service's run, a periodic
            worker's first successful tick; None: nothing has gone well yet.
    """

    restarts_s: tuple[float, ...] = ()
    setbacks: int = 0
    outages: int = 0
    good_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Run again when `delay_s` has passed; `restarts` were made in the window, this one included."""

    delay_s: float
    restarts: int


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Run again once the database is up and `delay_s` more have passed; nothing is counted."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class NextTick:
    """The tick went well: the next one comes when it is due."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker is done and is not run again; `is_failure` says that it ended with an error."""

    is_failure: bool


@dataclass(frozen=True, slots=True)
class Exhausted:
    """One restart more than the policy allows: the worker is not run again."""

    restarts: int


Decision = RestartAfter | RunAgain | NextTick | Finished | Exhausted


def begun(spec: WorkerSpec, history: History, *, now_s: float) -> History:
    """Return the history once a run has begun at `now_s`."""
    return history if isinstance(spec.kind, Periodic) else history._replace(good_since_s=now_s)


def judge(
    spec: WorkerSpec, history: History, ending: Ending, *, now_s: float, sample: float
) -> tuple[Decision, History]:
    """Decide what follows a run's end.

    Args:
        spec: Whose policy counts.
        history: The past, without this ending.
        ending: How the run ended.
        now_s: When it ended.
        sample: A number drawn evenly from [0, 1), for the jitter.
    """
    history = _settled(spec, history, now_s)
    match ending:
        case Ending.OUTAGE:
            again = RunAgain(delay_s(_AFTER_OUTAGE, history.outages, sample))
            return again, history._replace(outages=history.outages + 1)
        case Ending.POISONED | Ending.DISPLACED:
            # It would only fail again, and again, until somebody has acted, here or on another node.
            return Finished(is_failure=True), history
        case Ending.FAILED:
            if spec.restart == "never":
                return Finished(is_failure=True), history
            return _restart(spec, history, now_s, sample)
        case Ending.RETURNED:
            if isinstance(spec.kind, Periodic):
                since_s = now_s if history.good_since_s is None else history.good_since_s
                return NextTick(), history._replace(good_since_s=since_s)
            if spec.restart == "always":
                return _restart(spec, history, now_s, sample)
            return Finished(is_failure=False), history


def _restart(spec: WorkerSpec, history: History, now_s: float, sample: float) -> tuple[Decision, History]:
    recent_s = tuple(at_s for at_s in history.restarts_s if now_s - at_s <= spec.window_s)
    if len(recent_s) >= spec.max_restarts:
        return Exhausted(len(recent_s)), history._replace(restarts_s=recent_s)
    restart = RestartAfter(delay_s(spec.backoff, history.setbacks, sample), restarts=len(recent_s) + 1)
    return restart, History(restarts_s=(*recent_s, now_s), setbacks=history.setbacks + 1, outages=history.outages)


def _settled(spec: WorkerSpec, history: History, now_s: float) -> History:
    """Forget setbacks and outages if things have gone well for long enough.

    Merely starting proves nothing, and a run only as long as the backoff it caused would keep a
    worker that fails once a minute at its shortest delay for ever.
    """
    if history.good_since_s is None:
        return history
    good_s = now_s - history.good_since_s
    last = max(0, history.setbacks - 1)
    setbacks = 0 if good_s >= max(SUSTAINED_S, bound(spec.backoff, last)) else history.setbacks
    outages = 0 if good_s >= SUSTAINED_S else history.outages
    return history._replace(setbacks=setbacks, outages=outages)
