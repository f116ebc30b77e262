"""When the ticks of a periodic worker are due: at a fixed interval, or by a cron expression."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from math import floor, inf
from typing import TYPE_CHECKING

from supervisor.config.model import Cron, Every

if TYPE_CHECKING:
    from datetime import tzinfo

    from supervisor.clock import Clock
    from supervisor.config.model import Periodic
    from supervisor.supervision.ports import Schedule

# The wall clock can be set while a worker waits, and no event reports that.
RECHECK_S = 60.0
# Debian's cron has the same limit: a clock that goes back by less repeats nothing (the end of DST, a small correction).
# A clock that goes back by more was wrong, and what it had counted until then is void.
CLOCK_STEP_S = 3 * 3600.0
_LOCALTIME = "/etc/localtime"


def make_schedule(kind: Periodic, *, clock: Clock) -> Schedule:
    """Return the schedule of a periodic worker, starting now."""
    match kind.schedule:
        case Every(interval_s):
            return EverySchedule(interval_s, immediate=kind.immediate, clock=clock)
        case Cron(expression):
            return CronSchedule(expression, zone=machine_zone(clock), immediate=kind.immediate, clock=clock)


class EverySchedule:
    """A tick each `interval_s` seconds, from start to start, by the monotonic clock; missed ticks become one."""

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
        """Continue with the first tick that is still to come."""
        self._due_s = first_at_or_after(self._due_s, self._interval_s, now_s=self._clock.now_s())


def next_due_s(due_s: float, interval_s: float, *, now_s: float) -> float:
    """Return when the tick after the one that was due at `due_s` and begins at `now_s` is due.

    Counted from when it was due, so that the timer's small delays do not add up; but from its real
    start if whole ticks were missed.
    """
    following_s = due_s + interval_s
    return following_s if now_s < following_s and due_s <= now_s else now_s + interval_s


def first_at_or_after(due_s: float, interval_s: float, *, now_s: float) -> float:
    """Return the first of the moments `due_s + n * interval_s` that has not passed at `now_s`."""
    if now_s <= due_s:
        return due_s
    return due_s + (floor((now_s - due_s) / interval_s) + 1) * interval_s


class CronSchedule:
    """A tick at each time that the expression names, by the wall clock; missed ticks become one."""

    __slots__ = ("_clock", "_done_s", "_expression", "_is_due", "_next_s", "_seen_s", "_zone")

    def __init__(self, expression: str, *, zone: tzinfo, immediate: bool, clock: Clock) -> None:
        self._expression = expression
        self._zone = zone
        self._clock = clock
        self._is_due = immediate
        # The wall time up to which every tick is done, as seconds since 1970.
        self._done_s = self._seen_s = self._wall_s()
        self._next_s = next_instant_s(expression, zone, after_s=self._done_s)

    def delay_s(self) -> float:
        """Return the seconds until the next tick, or until the caller has to ask again."""
        if self._is_due:
            return 0.0
        self._check_clock_step()
        return min(RECHECK_S, self._next_s - self._wall_s())

    def next_run_s(self) -> float:
        """Return when the next tick is due, unless the wall clock is set before."""
        return self._clock.now_s() + (0.0 if self._is_due else max(0.0, self._next_s - self._wall_s()))

    def mark_started(self) -> None:
        """Note that the due tick begins: every tick up to now is done."""
        self._is_due = False
        self.skip_missed()

    def skip_missed(self) -> None:
        """Continue with the first tick that is still to come."""
        self._check_clock_step()
        self._done_s = max(self._done_s, self._wall_s())
        self._next_s = next_instant_s(self._expression, self._zone, after_s=self._done_s)

    def _check_clock_step(self) -> None:
        """Start again from the current time if the wall clock has been put back far."""
        wall_s = self._wall_s()
        if wall_s < self._done_s - CLOCK_STEP_S or wall_s < self._seen_s - CLOCK_STEP_S:
            self._done_s = wall_s
            self._next_s = next_instant_s(self._expression, self._zone, after_s=wall_s)
        self._seen_s = wall_s

    def _wall_s(self) -> float:
        return self._clock.wall_time().timestamp()


def next_instant_s(expression: str, zone: tzinfo, *, after_s: float) -> float:
    """Return the first time of a cron expression after `after_s`, both as seconds since 1970; infinite: there is none.

    cronsim handles a change of DST as Debian's cron does: a time that does not exist runs right after the gap, a time
    that comes twice runs once.
    """
    from cronsim import CronSim  # noqa: PLC0415 - loading it takes milliseconds, and only cron workers need it

    instants = CronSim(expression, datetime.fromtimestamp(after_s, UTC).astimezone(zone))
    # In the repeated hour cronsim names the first of the two, which may have passed already.
    return next((at_s for instant in instants if (at_s := instant.timestamp()) > after_s), inf)


def machine_zone(clock: Clock) -> tzinfo:
    """Return the zone that `TZ`, or else `/etc/localtime`, names, with its rules; or else the current UTC offset."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - as above

    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        with open(name or _LOCALTIME, "rb") as file:  # noqa: PTH123 - one file, and pathlib brings nothing here
            return ZoneInfo.from_file(file, key=name or _LOCALTIME)
    except (OSError, ValueError):
        # A POSIX rule such as `CET-1CEST`, or no file at all. ZoneInfoNotFoundError is a KeyError.
        pass
    except KeyError:
        pass
    zone = clock.wall_time().tzinfo
    assert zone is not None  # noqa: S101 - Clock.wall() promises it
    return zone
