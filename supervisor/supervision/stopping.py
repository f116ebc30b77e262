"""How long a run that is told to end is waited for; pure.

A run that notices its stop gets time to finish. One that cannot notice is cancelled as soon as
that hurts no database work. What is cancelled gets a grace, and then is left behind. Whose lease is lost
is cancelled at once: another node may run it already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

GRACE_S = 2.0
# After a second SIGTERM nobody wants to wait, but a `finally` should still get its turn.
HURRIED_GRACE_S = 0.3


class Stop(NamedTuple):
    """A stop under way.

    Attributes:
        told_s: When the run was told.
        limit_s: How long work in flight may take.
        notices: Whether it is work in flight by nature (a tick), or looks for its stop by itself.
        in_flight: Database calls it is inside of.
        hurried_s: Since when it is to end at once; None: it is not.
        cancelled_s: When it was last cancelled; None: not yet.
        lost_s: Since when its lease is lost; None: it is not, or there is none.
    """

    told_s: float
    limit_s: float
    notices: bool
    in_flight: int
    hurried_s: float | None
    cancelled_s: float | None
    lost_s: float | None = None


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Look again at `at_s`, or when something changes."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the run now."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """It does not end: name it and leave it behind."""


def next_step(stop: Stop, *, now_s: float) -> WaitUntil | Cancel | Abandon:
    """Decide the next step of a stop at `now_s`."""
    deadline_s = stop.told_s + stop.limit_s
    urgent_s = stop.hurried_s if stop.lost_s is None else max(stop.lost_s, stop.hurried_s or stop.lost_s)
    if stop.cancelled_s is None:
        is_due = urgent_s is not None or now_s >= deadline_s
        if is_due or not (stop.notices or stop.in_flight):
            return Cancel()
        return WaitUntil(deadline_s)
    if urgent_s is None:
        # Cancelled early, it keeps what is left of its time for what it has to put in order.
        end_s = max(deadline_s, stop.cancelled_s + GRACE_S)
    elif stop.cancelled_s < urgent_s:
        # It may have swallowed the first cancellation; the second SIGTERM means it, and so does a lost lease.
        return Cancel()
    else:
        end_s = stop.cancelled_s + (GRACE_S if stop.hurried_s is None else HURRIED_GRACE_S)
    return WaitUntil(end_s) if now_s < end_s else Abandon()
