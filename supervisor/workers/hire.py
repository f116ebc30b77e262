"""The work of each kind of worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from supervisor.config.model import Periodic, Projection, Service
from supervisor.workers.call import CallWork

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.events.bell import Bell
    from supervisor.leases.lease import LeaseHandle
    from supervisor.supervision.ports import DatabaseStatus, Work, WorkFactory
    from supervisor.workers.layout import Layouts


class Leasing(Protocol):
    """What workers with a lease need of the daemon."""

    def stand(self, name: str) -> LeaseHandle:
        """Return how this node stands to a lease."""

    @property
    def bell(self) -> Bell:
        """What rings when there may be new events."""

    @property
    def layouts(self) -> Layouts:
        """Which projections have been laid out on the database."""


def hiring(*, clock: Clock, outages: DatabaseStatus, rng: Random, leasing: Callable[[], Leasing]) -> WorkFactory:
    """Return what makes the work of one instance from its configuration and the user's function.

    Args:
        clock: Time.
        outages: The database.
        rng: Chance, for jitter.
        leasing: Returns what workers with a lease need; asked only for those.
    """

    def hire(spec: WorkerSpec, function: Any, index: int) -> Work:
        tenure = leasing().stand(spec.name) if spec.singleton and not isinstance(spec.kind, Projection) else None
        match spec.kind:
            case Service():
                return CallWork(spec, function, None, clock=clock, outages=outages, tenure=tenure)
            case Periodic():
                from supervisor.workers.periodic import timetable_of  # noqa: PLC0415 - who has none pays nothing

                timetable = timetable_of(spec.kind, clock=clock)
                return CallWork(spec, function, timetable, clock=clock, outages=outages, tenure=tenure)
            case Projection(shards=shards):
                # Only who has projections pays for them.
                from supervisor.events.shard import lease_name  # noqa: PLC0415
                from supervisor.workers.projection import ProjectionWork  # noqa: PLC0415

                common = leasing()
                shard_tenure = common.stand(lease_name(spec.name, index, shards))
                return ProjectionWork(
                    spec, function, shard=index, tenure=shard_tenure, bell=common.bell, layouts=common.layouts,
                    outages=outages, clock=clock, rng=rng,
                )  # fmt: skip

    return hire
