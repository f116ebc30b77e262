"""This daemon as a node of the cluster, with the tasks and the thread that a node needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.clock import done_within
from supervisor.daemon.lease_guard import LeaseGuard
from supervisor.leases.node import Node
from supervisor.leases.stand import LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.database.database import Database
    from supervisor.leases.look import ClusterSnapshot
    from supervisor.leases.stand import LocalLease
    from supervisor.runtime import Runtime

JOIN_TASK = "join the nodes"
_TASKS = ("leases", "leases: trust", JOIN_TASK)
# Joining is a handful of statements; a client of a reload waits for it.
_JOIN_TIMEOUT_S = 15.0
# Giving back takes a statement; what is not given back ends with the connection.
_RELEASE_TIMEOUT_S = 1.0
_POLL_S = 0.02
# A snapshot is due every five seconds, and each of its statements is answered or given up within five.
_STUCK_AFTER_S = 60.0


class Leasing:
    """A node, its loop and its expiry thread."""

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        runtime: Runtime,
        version: str,
        on_overrun: Callable[[str], object],
    ) -> None:
        self._database = database
        self._clock = runtime.clock
        self._tasks = runtime.tasks
        self.node = Node(
            database, name, clock=runtime.clock, rng=runtime.rng, tasks=runtime.tasks, version=version,
            on_outlived=on_overrun,
        )  # fmt: skip
        self.on_snapshot = self.node.on_look
        self.subscribe = self.node.subscribe
        self.summary = self.node.summary
        self.drain = self.node.withdraw
        self.on_process_resumed = self.node.woke
        self._guard = LeaseGuard(lambda: self.node.deadline, on_outlived=on_overrun, clock=runtime.clock)
        self._has_begun = False
        self._snapshot_s = float("-inf")
        self._leases: dict[str, LocalLease] = {}
        self.on_snapshot.append(self._note_snapshot)

    @property
    def id(self) -> int | None:
        """This node's row; None: it has none now."""
        return self.node.id

    @property
    def problem(self) -> str | None:
        """What keeps this node from holding leases; None: nothing."""
        return self.node.trouble

    def lease(self, name: str) -> LocalLease:
        """Return this node's view of a lease."""
        lease = self._leases[name] = self.node.stand(name)
        return lease

    async def join(self) -> None:
        """Join the other nodes, and keep what is held from then on; an outage meanwhile is waited out.

        Raises:
            SupervisorError: Leases cannot work here.
        """
        await self.node.begin()
        self._snapshot_s, self._has_begun = self._clock.now_s(), True
        self._tasks.start(self.node.run(), name=_TASKS[0], critical=True)
        self._guard.start()

    async def join_with_timeout(self) -> None:
        """Join the other nodes, for a reload, which must not wait for ever.

        Raises:
            SupervisorError: Leases cannot work here; nothing has been joined.
            TimeoutError: It took too long; nothing has been joined.
        """
        joining = self._tasks.start(_outcome(self), name=JOIN_TASK)
        has_joined = False
        try:
            if not await done_within(joining, _JOIN_TIMEOUT_S, clock=self._clock):
                raise TimeoutError(f"joining the other nodes has not ended after {_JOIN_TIMEOUT_S:g}s")
            if (error := joining.result()) is not None:
                raise error
            has_joined = True
        finally:
            if not has_joined:
                joining.cancel()
                self._database.monitor.session_owner = None

    def is_stuck(self, now_s: float) -> bool:
        """Whether the node's loop has not made progress for longer than any of its deadlines explains."""
        if not self._has_begun or not self._database.is_up or self.problem is not None:
            return False
        return now_s > max(self._snapshot_s, self._database.monitor.state_since_s) + _STUCK_AFTER_S

    async def wait_until_released(self) -> None:
        """Wait until every lease under which nothing runs has been given back, before the connection changes."""
        until_s = self._clock.now_s() + _RELEASE_TIMEOUT_S
        while self._clock.now_s() < until_s and any(
            lease.state is not LeaseState.NOT_HELD for lease in self._leases.values()
        ):
            await self._clock.sleep(_POLL_S)

    async def leave(self) -> None:
        """Give back every lease under which nothing runs, and leave the other nodes."""
        self._has_begun = False
        await self.node.leave()
        self._guard.stop()
        for name in _TASKS:
            self._tasks.cancel(name)

    def _note_snapshot(self, _: ClusterSnapshot) -> None:
        self._snapshot_s = self._clock.now_s()


async def _outcome(node: Leasing) -> Exception | None:
    """Join, and return what it raised: for a reload it is no fault of the daemon."""
    try:
        await node.join()
    except Exception as error:  # noqa: BLE001 - raised again by the caller
        return error
    return None
