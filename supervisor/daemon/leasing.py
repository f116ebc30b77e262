"""What a daemon has as one of the nodes: the node itself, and what is fed by its session."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import supervisor
from supervisor.daemon.cluster import Cluster
from supervisor.events.append_signal import AppendSignal
from supervisor.leases.node import JOIN_TASK, Node
from supervisor.runtime import Runtime
from supervisor.workers.projection.sharding import ShardingClaims

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.daemon.daemon import Daemon
    from supervisor.database.database import Database
    from supervisor.leases.local_lease import LocalLease

JOINING = JOIN_TASK


class Leasing:
    """A node, and what comes with being one.

    Attributes:
        node: The node.
        cluster: What `status` says of all nodes.
        append_signal: Wakes projections when there may be new events.
        sharding: The numbers of shards that this node claims.
    """

    def __init__(self, daemon: Daemon, database: Database) -> None:
        self._daemon = daemon
        runtime = Runtime(
            clock=daemon.clock, rng=daemon.rng, tasks=daemon.tasks, notifier=daemon.notifier, journal=daemon.journal
        )
        self.node = Node(
            database,
            daemon.config.name,
            runtime=runtime,
            version=supervisor.__version__,
            on_overrun=daemon.on_outlived,
        )
        self.cluster = Cluster(clock=daemon.clock, tasks=daemon.tasks)
        self.append_signal = AppendSignal()
        self.sharding = ShardingClaims()
        self.node.subscribe("supervisor_event", self.append_signal.notify)
        self.node.subscribe("supervisor_projection", self._revive)
        self.node.on_snapshot.append(self.append_signal.update_head)

    def lease(self, name: str) -> LocalLease:
        """Return the lease of this name."""
        return self.node.lease(name)

    async def begin(self) -> None:
        """Join the other nodes; raises as `Node.join` does."""
        await self.node.join()
        self._handle_sigcont()

    async def try_to_begin(self) -> None:
        """Join the other nodes, for a reload; raises as `Node.join_with_timeout` does."""
        await self.node.join_with_timeout()
        self._handle_sigcont()

    def _handle_sigcont(self) -> None:
        # A handler of Python's own runs before anything else that a worker left to be run when the process was
        # stopped; the loop's would have to wait for its turn.
        signal.signal(signal.SIGCONT, lambda *_: self.node.on_process_resumed())

    def is_overdue(self, now_s: float) -> bool:
        """Whether the node's loop is stuck."""
        return self.node.is_stuck(now_s)

    async def let_go(self) -> None:
        """Wait until every lease under which nothing runs is released."""
        await self.node.wait_until_released()

    def renew(self, workers: Iterable[str]) -> None:
        """Note that a person has configured workers now: of their projections, this node's layout is the newest."""
        for name in self._daemon.config.workers.keys() & workers:
            self.sharding.touch(name, now_s=self._daemon.clock.now_s())

    def move(self) -> None:
        """Begin anew on another database: what was laid out on the one before says nothing there."""
        self.sharding = ShardingClaims()

    async def leave(self) -> None:
        """Leave the other nodes."""
        await self.node.leave()
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def _revive(self, projection: str) -> None:
        if self._daemon.supervisor is not None:
            self._daemon.supervisor.resume_halted(projection)
