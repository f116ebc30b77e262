"""How long a run that was asked to stop is waited for; pure.

A cooperative run, which notices the stop by itself, gets time to finish. Any other is cancelled as soon as
that interrupts no database call. A cancelled run gets a grace, and then is abandoned. A run whose lease is lost
is cancelled at once: another node may already run the worker.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

GRACE_S = 2.0
# After a second SIGTERM nobody wants to wait, but a `finally` should still get its turn.
FORCED_GRACE_S = 0.3


class StopProgress(NamedTuple):
    """A stop under way.

    Attributes:
        requested_s: When the run was asked to stop.
        timeout_s: How long work in flight may take from then on.
        is_cooperative: Whether the run is work in flight by nature (a tick), or checks for its stop by itself.
        in_flight: Database calls under way.
        forced_since_s: Since when it is to end at once; None: it is not.
        cancelled_s: When it was last cancelled; None: not yet.
        lease_lost_s: Since when its lease is lost; None: it is not, or there is none.
    """

    requested_s: float
    timeout_s: float
    is_cooperative: bool
    in_flight: int
    forced_since_s: float | None
    cancelled_s: float | None
    lease_lost_s: float | None = None


class WaitUntil(NamedTuple):
    """Decide again at `at_s`, or when something changes."""

    at_s: float


class StopAction(Enum):
    """A step that is due now."""

    CANCEL = "cancel the run"
    ABANDON = "the run does not end: log it and go on without it"


def next_stop_action(stop: StopProgress, *, now_s: float) -> WaitUntil | StopAction:
    """Decide the next step of a stop at `now_s`."""
    deadline_s = stop.requested_s + stop.timeout_s
    urgent_s = _urgent_since_s(stop)
    if stop.cancelled_s is None:
        is_due = urgent_s is not None or now_s >= deadline_s
        if is_due or not (stop.is_cooperative or stop.in_flight):
            return StopAction.CANCEL
        return WaitUntil(deadline_s)
    if urgent_s is None:
        # Cancelled early, it keeps the rest of its time to clean up.
        end_s = max(deadline_s, stop.cancelled_s + GRACE_S)
    elif stop.cancelled_s < urgent_s:
        # The run may have swallowed the first cancellation: a second SIGTERM, or a lost lease, cancels again.
        return StopAction.CANCEL
    else:
        end_s = stop.cancelled_s + (GRACE_S if stop.forced_since_s is None else FORCED_GRACE_S)
    return WaitUntil(end_s) if now_s < end_s else StopAction.ABANDON


def _urgent_since_s(stop: StopProgress) -> float | None:
    if stop.lease_lost_s is None:
        return stop.forced_since_s
    return max(stop.lease_lost_s, stop.forced_since_s or stop.lease_lost_s)
