"""Ticks at a fixed distance, measured from start to start on the monotonic clock."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.clock import Clock


class EveryTimetable:
    """A tick each `interval_s` seconds; the missed ones become one."""

    __slots__ = ("_clock", "_due_s", "_interval_s")

    def __init__(self, interval_s: float, *, immediate: bool, clock: Clock) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._due_s = clock.now_s() + (0.0 if immediate else interval_s)

    def delay_s(self) -> float:
        """Return the seconds until the next tick."""
        return self._due_s - self._clock.now_s()

    def next_run_s(self) -> float:
        """Return when the next tick is due."""
        return self._due_s

    def mark_started(self) -> None:
        """Note that the due tick begins."""
        self._due_s = next_due_s(self._due_s, self._interval_s, now_s=self._clock.now_s())

    def skip_missed(self) -> None:
        """Go on with the first tick that is still to come."""
        self._due_s = first_from(self._due_s, self._interval_s, now_s=self._clock.now_s())


def next_due_s(due_s: float, interval_s: float, *, now_s: float) -> float:
    """Return when the tick after the one that was due at `due_s` and begins at `now_s` is due.

    Counted from when it was due, so that the timer's small delays do not add up; but from its real
    start if whole ticks were missed.
    """
    following_s = due_s + interval_s
    return following_s if now_s < following_s and due_s <= now_s else now_s + interval_s


def first_from(due_s: float, interval_s: float, *, now_s: float) -> float:
    """Return the first of the moments `due_s + n * interval_s` that has not passed at `now_s`."""
    if now_s <= due_s:
        return due_s
    return due_s + (floor((now_s - due_s) / interval_s) + 1) * interval_s
