"""The work of each kind of worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.model import Periodic, Service
from supervisor.workers.service import ServiceWork

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
                return ServiceWork(spec, function, clock=clock, outages=outages)
            case Periodic():
                from supervisor.workers.periodic import PeriodicWork  # noqa: PLC0415 - who has none pays nothing

                return PeriodicWork(spec, spec.kind, function, clock=clock, outages=outages)

    return hire
