"""Ticks by a cron expression, in the machine's time zone and by its wall clock."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

from cronsim import CronSim

if TYPE_CHECKING:
    from datetime import tzinfo

    from supervisor.clock import Clock

# A wall clock can be set while we wait, and nothing tells us.
LOOK_AGAIN_S = 60.0
# Debian's cron draws the same line: a clock that goes back by less repeats nothing (the end of DST, a
# small correction), one that goes back by more was wrong, and what it has counted until then is void.
CORRECTION_S = 3 * 3600.0


class CronTimetable:
    """A tick at each instant that the expression names; the missed ones become one."""

    __slots__ = ("_clock", "_done_s", "_expression", "_is_due", "_next_s", "_seen_s", "_zone")

    def __init__(self, expression: str, *, zone: tzinfo, immediate: bool, clock: Clock) -> None:
        self._expression = expression
        self._zone = zone
        self._clock = clock
        self._is_due = immediate
        # The wall time up to which every instant is done, as seconds since 1970.
        self._done_s = self._seen_s = self._wall_s()
        self._next_s = next_instant_s(expression, zone, after_s=self._done_s)

    def delay_s(self) -> float:
        """Return the seconds until the next tick, or until it has to be asked again."""
        if self._is_due:
            return 0.0
        self._notice_correction()
        return min(LOOK_AGAIN_S, self._next_s - self._wall_s())

    def next_run_s(self) -> float:
        """Return when the next tick is due, if nobody sets the wall clock."""
        return self._clock.now_s() + (0.0 if self._is_due else max(0.0, self._next_s - self._wall_s()))

    def mark_started(self) -> None:
        """Note that the due tick begins: every instant up to now is done."""
        self._is_due = False
        self.skip_missed()

    def skip_missed(self) -> None:
        """Go on with the first instant that is still to come."""
        self._notice_correction()
        self._done_s = max(self._done_s, self._wall_s())
        self._next_s = next_instant_s(self._expression, self._zone, after_s=self._done_s)

    def _notice_correction(self) -> None:
        """Begin anew if the wall clock has been put back far."""
        wall_s = self._wall_s()
        if wall_s < self._done_s - CORRECTION_S or wall_s < self._seen_s - CORRECTION_S:
            self._done_s = wall_s
            self._next_s = next_instant_s(self._expression, self._zone, after_s=wall_s)
        self._seen_s = wall_s

    def _wall_s(self) -> float:
        return self._clock.wall_time().timestamp()


def next_instant_s(expression: str, zone: tzinfo, *, after_s: float) -> float:
    """Return the first instant of a cron expression after `after_s`, both as seconds since 1970.

    Infinite if there is none. What happens around a change of DST is cronsim's, which does as Debian's
    cron: a time that does not exist runs right after the gap, a time that comes twice runs once.
    """
    instants = CronSim(expression, datetime.fromtimestamp(after_s, UTC).astimezone(zone))
    # In the repeated hour cronsim names the first of the two, which may have passed already.
    return next((at_s for instant in instants if (at_s := instant.timestamp()) > after_s), inf)
