"""The work of each kind of worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.model import Periodic, Service
from supervisor.workers.call import CallWork

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.outage import Outages
    from supervisor.supervision.supervisor import Hire
    from supervisor.supervision.work import Work


def hiring(*, clock: Clock, outages: Outages) -> Hire:
    """Return what makes the work of one instance from its configuration and the user's function."""

    def hire(spec: WorkerSpec, function: Any) -> Work:
        match spec.kind:
            case Service():
                return CallWork(spec, function, None, clock=clock, outages=outages)
            case Periodic():
                from supervisor.workers.periodic import timetable_of  # noqa: PLC0415 - who has none pays nothing

                timetable = timetable_of(spec.kind, clock=clock)
                return CallWork(spec, function, timetable, clock=clock, outages=outages)

    return hire
