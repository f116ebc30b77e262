"""When the ticks of a periodic worker are due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.model import Cron, Every
from supervisor.workers.every import EveryTimetable

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.config.model import Periodic
    from supervisor.supervision.ports import Schedule


def timetable_of(kind: Periodic, *, clock: Clock) -> Schedule:
    """Return the timetable of a schedule, beginning now."""
    match kind.schedule:
        case Every(interval_s):
            return EveryTimetable(interval_s, immediate=kind.immediate, clock=clock)
        case Cron(expression):
            # cronsim, the calendar and the time zones are only paid for by who uses cron.
            from supervisor.workers.cron import CronTimetable  # noqa: PLC0415
            from supervisor.workers.time_zone import machine_zone  # noqa: PLC0415

            return CronTimetable(expression, zone=machine_zone(clock), immediate=kind.immediate, clock=clock)
