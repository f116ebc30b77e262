"""The daemon as one of the nodes: its leases and what it hears of the others, where a worker needs a lease."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import supervisor
from supervisor.clock import done_within
from supervisor.daemon.cluster import Cluster
from supervisor.daemon.lease_guard import LeaseGuard
from supervisor.events.bell import Bell
from supervisor.leases.node import Node
from supervisor.leases.stand import LeaseState
from supervisor.workers.layout import Layouts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.daemon.daemon import Daemon
    from supervisor.database.database import Database
    from supervisor.leases.look import ClusterSnapshot
    from supervisor.leases.stand import LocalLease

JOINING = "join the nodes"
_TASKS = ("leases", "leases: trust", JOINING)
# Joining is a handful of statements; whoever reloads waits for it.
_JOIN_LIMIT_S = 15.0
# Giving back takes a statement; what is not given back ends with the connection.
_GIVE_BACK_LIMIT_S = 1.0
_LOOK_AGAIN_S = 0.02
# A look is due every five seconds, and each of its statements is answered or given up within five.
_OVERDUE_S = 60.0


class Leasing:
    """A node, and what comes with being one.

    Attributes:
        node: The node.
        cluster: What `status` says of all nodes.
        bell: Rings when there may be new events.
        layouts: The projections that have been laid out.
    """

    def __init__(self, daemon: Daemon, database: Database) -> None:
        self._daemon = daemon
        self._database = database
        self.node = Node(
            database, daemon.config.name, clock=daemon.clock, rng=daemon.rng, tasks=daemon.tasks,
            version=supervisor.__version__, on_outlived=daemon.on_outlived,
        )  # fmt: skip
        self.cluster = Cluster(clock=daemon.clock, tasks=daemon.tasks)
        self.bell = Bell()
        self.layouts = Layouts()
        self._guard = LeaseGuard(lambda: self.node.deadline, on_outlived=daemon.on_outlived, clock=daemon.clock)
        self._has_begun = False
        self._looked_s = float("-inf")
        self._stands: dict[str, LocalLease] = {}

    def stand(self, name: str) -> LocalLease:
        """Return how this node stands to a lease."""
        stand = self._stands[name] = self.node.stand(name)
        return stand

    async def begin(self) -> None:
        """Join the others, and keep what is held from then on; an outage meanwhile is waited out.

        Raises:
            SupervisorError: Leases cannot work here.
        """
        self.node.subscribe("supervisor_event", self.bell.ring)
        self.node.subscribe("supervisor_projection", self._revive)
        self.node.on_look += [self.bell.look, self._looked]
        await self.node.begin()
        self._looked_s, self._has_begun = self._daemon.clock.now_s(), True
        self._daemon.tasks.start(self.node.run(), name=_TASKS[0], critical=True)
        self._guard.start()
        # A handler of Python's own runs before anything else that a worker left to be run when the process was
        # stopped; the loop's would have to wait for its turn.
        signal.signal(signal.SIGCONT, lambda *_: self.node.woke())

    async def try_to_begin(self) -> None:
        """Join the others, for a reload, which must not wait for ever.

        Raises:
            SupervisorError: Leases cannot work here; nothing has been joined.
            TimeoutError: It took too long; nothing has been joined.
        """
        daemon = self._daemon
        joining = daemon.tasks.start(_outcome(self), name=JOINING)
        if not await done_within(joining, _JOIN_LIMIT_S, clock=daemon.clock):
            joining.cancel()
            self._database.monitor.session_owner = None
            raise TimeoutError(f"joining the other nodes has not ended after {_JOIN_LIMIT_S:g}s")
        if (error := joining.result()) is not None:
            self._database.monitor.session_owner = None
            raise error

    def is_overdue(self, now_s: float) -> bool:
        """Whether the node's loop has not turned for longer than any of its deadlines explains."""
        if not self._has_begun or not self._database.is_up or self.node.trouble is not None:
            return False
        return now_s > max(self._looked_s, self._database.monitor.state_since_s) + _OVERDUE_S

    async def let_go(self) -> None:
        """Wait until everything that nothing runs under any more has been given back, before the connection changes."""
        clock = self._daemon.clock
        until_s = clock.now_s() + _GIVE_BACK_LIMIT_S
        while clock.now_s() < until_s and any(
            stand.state is not LeaseState.NOT_HELD for stand in self._stands.values()
        ):
            await clock.sleep(_LOOK_AGAIN_S)

    def renew(self, workers: Iterable[str]) -> None:
        """Note that a person has configured workers now: of their projections, this node's layout is the newest."""
        for name in self._daemon.config.workers.keys() & workers:
            self.layouts.renew(name, now_s=self._daemon.clock.now_s())

    def move(self) -> None:
        """Begin anew on another database: what was laid out on the one before says nothing there."""
        self.layouts = Layouts()

    async def leave(self) -> None:
        """Give back what nothing runs under, and be no node any more."""
        self._has_begun = False
        await self.node.leave()
        self._guard.stop()
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        for name in _TASKS:
            self._daemon.tasks.cancel(name)

    def _looked(self, _: ClusterSnapshot) -> None:
        self._looked_s = self._daemon.clock.now_s()

    def _revive(self, projection: str) -> None:
        if self._daemon.supervisor is not None:
            self._daemon.supervisor.resume_halted(projection)


async def _outcome(leasing: Leasing) -> Exception | None:
    """Begin, and return what it raised: for whoever reloads it is no fault of the daemon."""
    try:
        await leasing.begin()
    except Exception as error:  # noqa: BLE001 - raised again by who waits
        return error
    return None
