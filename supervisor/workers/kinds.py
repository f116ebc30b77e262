"""The kinds of worker, one row each: what builds a worker's work. `config/kinds.py` has the other half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from supervisor.config.kinds import kind_of, needs_lease
from supervisor.config.model import Periodic, Projection
from supervisor.workers.function_work import FunctionWork
from supervisor.workers.schedules import make_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.config.model import WorkerSpec
    from supervisor.events.append_signal import AppendSignal
    from supervisor.leases.lease import LeaseHandle
    from supervisor.runtime import Runtime
    from supervisor.supervision.ports import DatabaseStatus, Schedule, Work, WorkFactory
    from supervisor.workers.projection.sharding import ShardingClaims

    # From the services, the configuration, the user's function, and the instance's index.
    Builder = Callable[["Services", WorkerSpec, Any, int], Work]


class ClusterServices(Protocol):
    """What workers need of the node that this process is."""

    def lease(self, name: str) -> LeaseHandle:
        """Return this node's view of a lease."""

    @property
    def append_signal(self) -> AppendSignal:
        """What wakes projections when there may be new events."""

    @property
    def sharding(self) -> ShardingClaims:
        """The numbers of shards that this node claims for its projections."""


class Services(NamedTuple):
    """What work is built from, beside the worker's own configuration.

    Attributes:
        runtime: Services of the process.
        database: The database.
        cluster: Returns the node's services; called only for kinds of worker that need a node, and for leases.
    """

    runtime: Runtime
    database: DatabaseStatus
    cluster: Callable[[], ClusterServices]


def work_factory(*, runtime: Runtime, database: DatabaseStatus, cluster: Callable[[], ClusterServices]) -> WorkFactory:
    """Return the function that builds the work of one instance."""
    services = Services(runtime, database, cluster)

    def build(spec: WorkerSpec, handler: Any, index: int) -> Work:
        return BUILDERS[kind_of(spec).name](services, spec, handler, index)

    return build


def _service(services: Services, spec: WorkerSpec, handler: Any, _: int) -> Work:
    return _function_work(services, spec, handler)


def _periodic(services: Services, spec: WorkerSpec, handler: Any, _: int) -> Work:
    assert isinstance(spec.kind, Periodic)  # noqa: S101 - the table is by kind
    return _function_work(services, spec, handler, make_schedule(spec.kind, clock=services.runtime.clock))


def _function_work(services: Services, spec: WorkerSpec, handler: Any, schedule: Schedule | None = None) -> Work:
    return FunctionWork(
        spec,
        handler,
        clock=services.runtime.clock,
        database=services.database,
        schedule=schedule,
        lease_handle=services.cluster().lease(spec.name) if needs_lease(spec) else None,
    )


def _projection(services: Services, spec: WorkerSpec, handler: Any, index: int) -> Work:
    # A daemon without projections does not load these packages.
    from supervisor.events.shard import Shard, lease_name  # noqa: PLC0415
    from supervisor.workers.projection.shard_context import ShardContext  # noqa: PLC0415
    from supervisor.workers.projection.work import ProjectionWork  # noqa: PLC0415

    assert isinstance(spec.kind, Projection)  # noqa: S101 - the table is by kind
    shard = Shard(spec.name, index, spec.kind.shards)
    runtime, cluster = services.runtime, services.cluster()
    context = ShardContext(
        spec,
        spec.kind,
        shard,
        handler,
        lease_handle=cluster.lease(lease_name(*shard)),
        append_signal=cluster.append_signal,
        database=services.database,
        clock=runtime.clock,
        rng=runtime.rng,
        configured_s=cluster.sharding.since_s(spec.name, now_s=runtime.clock.now_s()),
    )
    return ProjectionWork(context, cluster.sharding)


BUILDERS: Mapping[str, Builder] = {
    "service": _service,
    "periodic": _periodic,
    "projection": _projection,
}
