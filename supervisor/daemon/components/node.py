"""This daemon as a node of the cluster, as a component: only where a worker needs it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import asyncpg

import supervisor
from supervisor.config.kinds import needs_node
from supervisor.daemon.component import Component, Prepared
from supervisor.errors import DatabaseAccessDenied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from supervisor.config.model import Config
    from supervisor.daemon.cluster_status import ClusterStatus
    from supervisor.daemon.components.database import DatabaseComponent
    from supervisor.database.monitor import ConnectionMonitor
    from supervisor.events.append_signal import AppendSignal
    from supervisor.leases.local_lease import LocalLease
    from supervisor.leases.node import Node
    from supervisor.runtime import Runtime
    from supervisor.workers.projection.sharding import ShardingClaims

# The node bounds both its steps by a second itself.
_STOP_TIMEOUT_S = 3.0
# No node has this number: the statement shows that it can be asked, and nothing else.
_NO_NODE = 0


class Membership:
    """A node, and what the workers of a node share.

    Attributes:
        node: The node.
        append_signal: Wakes the projections when there may be new events.
        sharding: The numbers of shards that this node claims for its projections.
        cluster_status: What `status` says of all nodes.
    """

    def __init__(
        self, node: Node, *, append_signal: AppendSignal, sharding: ShardingClaims, cluster_status: ClusterStatus
    ) -> None:
        self.node = node
        self.append_signal = append_signal
        self.sharding = sharding
        self.cluster_status = cluster_status


class NodeComponent(Component):
    """Joins the cluster for the first worker that needs it, and leaves after the last one.

    Args:
        config: The configuration in force.
        runtime: Services.
        database: The database, and its candidate during a reload.
        on_projection_changed: Called with the name of a projection that another process changed; empty: any may
            have been.
        on_overrun: Called with the name of a lost lease under which a worker still runs.
        on_step: Shows what the start does.
    """

    name = "node"
    stop_timeout_s = _STOP_TIMEOUT_S

    def __init__(
        self, config: Config, *, runtime: Runtime, database: DatabaseComponent,
        on_projection_changed: Callable[[str], object], on_overrun: Callable[[str], object],
        on_step: Callable[[str], object],
    ) -> None:  # fmt: skip
        self._config = config
        self._runtime = runtime
        self._database = database
        self._on_projection_changed = on_projection_changed
        self._on_overrun = on_overrun
        self._on_step = on_step
        self._membership: Membership | None = None
        self._has_started = False

    @property
    def membership(self) -> Membership | None:
        """The node; None: no worker needs it."""
        return self._membership

    @property
    def _joined(self) -> Membership:
        assert self._membership is not None  # noqa: S101 - made before the first worker that needs it
        return self._membership

    def lease(self, name: str) -> LocalLease:
        """Return this node's view of a lease."""
        return self._joined.node.lease(name)

    @property
    def append_signal(self) -> AppendSignal:
        """What wakes the projections when there may be new events."""
        return self._joined.append_signal

    @property
    def sharding(self) -> ShardingClaims:
        """The numbers of shards that this node claims for its projections."""
        return self._joined.sharding

    def touch_config_time(self, workers: Iterable[str]) -> None:
        """Note that these workers were configured now: of their projections, this node has the newest sharding."""
        if self._membership is not None:
            now_s = self._runtime.clock.now_s()
            for name in workers:
                self._membership.sharding.touch(name, now_s=now_s)

    async def start(self) -> None:
        """Join the other nodes, where a worker needs it.

        Raises:
            SupervisorError: Leases cannot work here.
        """
        if needs_node(self._config):
            self._on_step("Joining the other nodes")
            self._membership = self._new_membership()
            await self._membership.node.join()
            self._watch_resume(self._membership)
        self._has_started = True

    async def validate(self, old: Config, new: Config) -> Prepared:  # noqa: ARG002 - what counts is whether it is a node
        """Join on the connection in force where that stays, else try what a node does on the new one.

        Raises:
            SupervisorError: Leases cannot work here; nothing has been joined.
            TimeoutError: Joining took too long; nothing has been joined.
        """
        candidate, is_needed = self._database.candidate, needs_node(new)
        if is_needed and candidate is not None:
            await self._check_lease_support(candidate)
        if not self._has_started or is_needed == (self._membership is not None):
            return Prepared(apply=lambda: self._keep(new), is_empty=True)
        if not is_needed:
            return Prepared(apply=lambda: self._keep(new), finish=self._leave)
        membership = self._new_membership()
        if candidate is None:
            await membership.node.join_with_timeout()

        async def apply() -> None:
            self._config, self._membership = new, membership
            self._watch_resume(membership)
            if candidate is not None:
                membership.node.start_joining()

        async def discard() -> None:
            if candidate is None:
                await membership.node.leave()

        return Prepared(apply=apply, discard=discard)

    async def release_before_switch(self, new: Config) -> None:
        """Give the leases back on the connection in force; after the switch they are requested on the new one."""
        if self._membership is None or not self._has_started:
            return
        from supervisor.workers.projection.sharding import ShardingClaims  # noqa: PLC0415 - most daemons have no leases

        await self._membership.node.wait_until_released()
        self._membership.sharding = ShardingClaims()  # the claims were made on the old database
        if not needs_node(new):
            await self._leave()  # the new database may have no schema

    async def drain(self) -> None:
        """Acquire no lease any more, and publish that; what is held stays until its workers have ended."""
        if self._membership is not None:
            await self._membership.node.drain()

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - the node's own limits are shorter
        """Give the leases back and leave; the workers have ended."""
        if self._membership is not None:
            await self._membership.node.leave()
            self._watch_resume(None)

    def is_healthy(self, now_s: float) -> bool:
        """Whether the node's loop makes progress."""
        return self._membership is None or not self._membership.node.is_stuck(now_s)

    def degraded(self) -> str | None:
        """Return what keeps this node from holding leases."""
        problem = self._membership.node.problem if self._membership is not None else None
        return f"leases: {problem}" if problem is not None else None

    async def cluster_status(self, config: Config) -> Mapping[str, Any]:
        """Return what the database says of all nodes; nothing where this daemon is no node."""
        membership = self._membership
        if membership is None:
            return {}
        from supervisor.daemon.cluster_status import status_query  # noqa: PLC0415 - most daemons have no leases

        query = status_query(config, membership.node)
        return await membership.cluster_status.fetch(self._database.current, query)

    async def _keep(self, new: Config) -> None:
        self._config = new

    async def _leave(self) -> None:
        membership, self._membership = self._membership, None
        if membership is not None:
            await membership.node.wait_until_released()
            await membership.node.leave()
            self._watch_resume(None)

    def _watch_resume(self, membership: Membership | None) -> None:
        """Have the node check its leases when the process continues after a suspension: they may have passed on."""
        # A handler of Python's own runs before anything else that a worker left to be run when the process was
        # suspended; a handler of the loop would have to wait for its turn.
        handler = signal.SIG_DFL if membership is None else lambda *_: membership.node.on_process_resumed()
        signal.signal(signal.SIGCONT, handler)

    def _new_membership(self) -> Membership:
        # Only daemons with leases pay for these imports.
        from supervisor.daemon.cluster_status import ClusterStatus  # noqa: PLC0415
        from supervisor.events.append_signal import AppendSignal  # noqa: PLC0415
        from supervisor.leases.node import Node  # noqa: PLC0415
        from supervisor.workers.projection.sharding import ShardingClaims  # noqa: PLC0415

        runtime = self._runtime
        node = Node(
            self._database.database, self._config.name, runtime=runtime, version=supervisor.__version__,
            on_overrun=self._on_overrun,
        )  # fmt: skip
        append_signal = AppendSignal()
        node.subscribe("supervisor_event", append_signal.notify)
        node.subscribe("supervisor_projection", self._on_projection_changed)
        node.on_snapshot.append(append_signal.update_head)
        return Membership(
            node,
            append_signal=append_signal,
            sharding=ShardingClaims(),
            cluster_status=ClusterStatus(clock=runtime.clock, tasks=runtime.tasks),
        )

    async def _check_lease_support(self, monitor: ConnectionMonitor) -> None:
        """Make sure that a node can live on the connection of a monitor that is not in force yet.

        Raises:
            SupervisorError: It cannot; nothing has changed.
        """
        # Only where there are leases.
        from supervisor.database.session import Session  # noqa: PLC0415
        from supervisor.leases.pooler_check import reject_transaction_pooling  # noqa: PLC0415
        from supervisor.leases.snapshot import SNAPSHOT_SQL  # noqa: PLC0415

        assert monitor.connected is not None  # noqa: S101 - it has just connected
        session = Session(monitor, monitor.connected, clock=self._runtime.clock)
        await reject_transaction_pooling(session, is_thorough=True)
        try:
            await session.fetch(SNAPSHOT_SQL, _NO_NODE)
        except asyncpg.PostgresError as error:
            raise DatabaseAccessDenied(f"this role may not do what a node does: {error} ({error.sqlstate})") from error
