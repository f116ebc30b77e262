"""A periodic worker: one tick at a time, each when it is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.model import Cron, Every
from supervisor.workers.call import call
from supervisor.workers.context import Context
from supervisor.workers.every import EveryTimetable

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import Periodic, WorkerSpec
    from supervisor.database.stop import StopSignal
    from supervisor.supervision.outage import Outages
    from supervisor.supervision.work import Timetable


class PeriodicWork:
    """A periodic worker's ticks and when they are due."""

    __slots__ = ("_clock", "_function", "_outages", "_spec", "timetable")

    def __init__(
        self,
        spec: WorkerSpec,
        kind: Periodic,
        function: Callable[[Context], Any],
        *,
        clock: Clock,
        outages: Outages,
    ) -> None:
        self.timetable = timetable_of(kind, clock=clock)
        self._spec = spec
        self._function = function
        self._clock = clock
        self._outages = outages

    async def run(self, stop: StopSignal) -> None:
        """Do one tick."""
        await call(self._function, Context(self._spec, stop=stop, outages=self._outages, clock=self._clock))


def timetable_of(kind: Periodic, *, clock: Clock) -> Timetable:
    """Return the timetable of a schedule, beginning now."""
    match kind.schedule:
        case Every(interval_s):
            return EveryTimetable(interval_s, immediate=kind.immediate, clock=clock)
        case Cron(expression):
            # cronsim, the calendar and the time zones are only paid for by who uses cron.
            from supervisor.workers.cron import CronTimetable  # noqa: PLC0415
            from supervisor.workers.time_zone import machine_zone  # noqa: PLC0415

            return CronTimetable(expression, zone=machine_zone(clock), immediate=kind.immediate, clock=clock)
