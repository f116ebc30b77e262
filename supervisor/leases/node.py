"""This daemon as a node: its loop, and what the rest of the daemon sees of it.

Each tick of the loop takes a snapshot, makes a plan (`plan.py`) and carries it out. The statements run one after the
other on the node's session, so that between a snapshot and what follows from it only other nodes change anything; the
epochs alone are advanced beside it, on pooled connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg

from supervisor.clock import done_within
from supervisor.database.session import SessionEnded, SessionHolder
from supervisor.errors import ConfigError
from supervisor.leases.acquisition import LeaseAcquirer
from supervisor.leases.expiry import LeaseExpiry, LeaseExpiryThread
from supervisor.leases.lease_log import ProblemLog
from supervisor.leases.local_lease import LeaseEvent, LeaseState, LocalLeases
from supervisor.leases.notifications import Notifications, RequestBackoff, request_payloads
from supervisor.leases.peers import Peers
from supervisor.leases.plan import RECLAIM_WINDOW_S, PlanCache, PlanInput, lost_locks
from supervisor.leases.pooler_check import reject_transaction_pooling
from supervisor.leases.registration import NodeRegistration, node_identity, register_at_start
from supervisor.leases.snapshot import SNAPSHOT_SQL, ClusterSnapshot
from supervisor.leases.timing import HEARTBEAT_S, IDLE_SESSION_TIMEOUT_S, STANDBY_POLL_S
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from supervisor.database.database import Database
    from supervisor.database.session import Session
    from supervisor.leases.local_lease import LocalLease
    from supervisor.leases.registration import NodeSession
    from supervisor.runtime import Runtime

_NOTIFY_SQL = "SELECT pg_catalog.pg_notify('supervisor_lease', p) FROM unnest($1::text[]) AS p"
_JOIN_TASK = "join the nodes"
_LOOP_TASK = "leases"
_EXPIRY_TASK = "leases: expiry"
# Joining is a handful of statements; a reload waits for it.
_JOIN_TIMEOUT_S = 15.0
# Releasing takes a statement; what is not released goes with the connection.
_RELEASE_TIMEOUT_S = 1.0
_DRAIN_TIMEOUT_S = 0.5
_LEAVE_TIMEOUT_S = 1.0
# A heartbeat is due every five seconds, and each of its statements is answered or given up within five.
_STUCK_AFTER_S = 60.0
# Many notifications at once are one tick.
_MIN_GAP_S = 0.01
_AFTER_FAILURE_S = 1.0
# One notification wakes every node; this keeps them from ticking in step ever after.
_JITTER = 0.15


class Node:
    """One daemon among those that share a database.

    Attributes:
        identity: The same over all of its sessions.
        on_snapshot: Called with each snapshot.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        runtime: Runtime,
        version: str,
        on_overrun: Callable[[str], object],
        idle_timeout_s: float = IDLE_SESSION_TIMEOUT_S,
    ) -> None:
        """Make a node that has not joined yet.

        Args:
            database: The database that the nodes share.
            name: The daemon's.
            runtime: The daemon's.
            version: The daemon's, for people.
            on_overrun: Called with the name of a lost lease under which something still runs after its grace; from
                a thread, where the event loop is blocked.
            idle_timeout_s: After how much silence the server ends the session.
        """
        clock = runtime.clock
        self.identity = node_identity(name, version, clock=clock)
        self.on_snapshot: list[Callable[[ClusterSnapshot], object]] = []
        self._database = database
        self._clock = clock
        self._rng = runtime.rng
        self._tasks = runtime.tasks
        self._wakeup = Wakeup(clock=clock)
        # Callers that wait until the loop has come so far.
        self._waiters: set[Wakeup] = set()
        self._leases = LocalLeases(now_s=clock.now_s, on_change=self._on_lease_changed, on_lost=self._on_lease_lost)
        self._acquirer = LeaseAcquirer(
            database, self.identity.name, self._leases, runtime=runtime, on_change=self._on_lease_changed
        )
        self._expiry = LeaseExpiry(self._leases, clock=clock, on_expired=self._on_expired, on_overrun=on_overrun)
        self._expiry_thread = LeaseExpiryThread(lambda: self._expiry.deadline, on_overrun=on_overrun, clock=clock)
        self._registration = NodeRegistration(self.identity, self._leases, clock=clock, idle_timeout_s=idle_timeout_s)
        self._peers = Peers(clock=clock)
        self._notifications = Notifications(self._wakeup.wake)
        self._plans = PlanCache()
        self._request_backoff = RequestBackoff(clock=clock)
        self._problem_log = ProblemLog(clock=clock)
        self._holder: SessionHolder | None = None
        self._joined_s: float | None = None
        self._snapshot_s: float | None = None
        self._tick_problem: str | None = None
        self._standby_poll_s = STANDBY_POLL_S
        self._not_before_s = float("-inf")
        self._own_tasks: list[asyncio.Task[Any]] = []
        self._is_drained = False
        self._is_leaving = False
        self._has_left = False

    @property
    def id(self) -> int | None:
        """This node's row; None: it has none now."""
        return self._registration.current.id if self._registration.current is not None else None

    @property
    def problem(self) -> str | None:
        """What keeps this node from holding leases; None: nothing."""
        return self._tick_problem or self._acquirer.problem

    def lease(self, name: str) -> LocalLease:
        """Return the lease of this name, always the same object."""
        return self._leases.get(name)

    def subscribe(self, channel: str, callback: Callable[[str], object]) -> None:
        """Call `callback` with the payload of each notification on a channel.

        It is called with "" when notifications may have been missed: at the beginning of each session.
        """
        self._notifications.subscribe(channel, callback)

    def is_stuck(self, now_s: float) -> bool:
        """Whether the loop has not ticked for longer than any of its timeouts explains."""
        if self._joined_s is None or not self._database.is_up or self.problem is not None:
            return False
        last_s = max(self._joined_s, self._snapshot_s or self._joined_s, self._database.monitor.state_since_s)
        return now_s > last_s + _STUCK_AFTER_S

    def on_process_resumed(self) -> None:
        """Check the leases: the process was stopped, and another node may have acquired them meanwhile."""
        self._expiry.check()

    async def join(self) -> None:
        """Register, before any worker starts, and hold leases from then on; an outage meanwhile is waited out.

        Raises:
            ConfigError: A proxy between here and the server pools transactions.
            DatabaseAccessDenied: A privilege is missing, or the server is read-only.
            SchemaIncompatible: The SQL schema does not fit.
            ConnectAttemptsExhausted: All tries failed.
        """
        self._holder = SessionHolder(
            self._database, clock=self._clock, on_begin=self._wakeup.wake, on_end=self._on_session_ended
        )
        await register_at_start(self._database, self._holder, self._register, clock=self._clock)
        self._joined_s = self._clock.now_s()
        self._own_tasks.append(self._tasks.start(self._run(), name=_LOOP_TASK, critical=True))
        self._expiry_thread.start()

    def start_joining(self) -> None:
        """Join in the background; a failure ends the daemon."""
        self._own_tasks.append(self._tasks.start(self.join(), name=_JOIN_TASK, critical=True))

    async def join_with_timeout(self) -> None:
        """Join for a reload, which must not wait without end.

        Raises:
            SupervisorError: Leases cannot work here; nothing was joined.
            TimeoutError: It took too long; nothing was joined.
        """
        joining = self._tasks.start(_error_of(self.join()), name=_JOIN_TASK)
        if await done_within(joining, _JOIN_TIMEOUT_S, clock=self._clock):
            error = joining.result()
        else:
            joining.cancel()
            error = TimeoutError(f"joining the other nodes has not ended after {_JOIN_TIMEOUT_S:g}s")
        if error is not None:
            self._detach()
            raise error

    async def wait_until_released(self) -> None:
        """Wait until every lease under which nothing runs is released, before the connection changes."""
        await self._wait_for(lambda: not self._leases.not_free(), _RELEASE_TIMEOUT_S)

    async def drain(self) -> None:
        """Acquire nothing any more, and publish that; what is held stays until its workers have ended."""
        self._stop_acquiring()
        if self._registration.current is not None:
            await self._wait_for(lambda: self._is_drained, _DRAIN_TIMEOUT_S)

    async def leave(self) -> None:
        """Release everything under which nothing runs, unregister if that is all, and stop the loop."""
        self._joined_s = None
        self._is_leaving = True
        self._stop_acquiring()
        if self._registration.current is not None:
            await self._wait_for(lambda: self._has_left, _LEAVE_TIMEOUT_S)
        if not self._leases.not_free():
            self._detach()
        self._acquirer.log.flush()
        self._expiry_thread.stop()
        # By object: a later reload may have made another node, whose tasks have the same names.
        for task in self._own_tasks:
            self._tasks.cancel_task(task)

    def _detach(self) -> None:
        """Give the connection back to the database: it is no node's session any more."""
        if self._holder is not None:
            self._database.detach_session(self._holder)

    def _stop_acquiring(self) -> None:
        self._registration.is_draining = True
        for lease in self._leases.in_states(LeaseState.ACQUIRING):
            lease.apply(LeaseEvent.REVOKE)
        self._wakeup.wake()

    async def _wait_for(self, is_reached: Callable[[], bool], timeout_s: float) -> None:
        deadline_s = self._clock.now_s() + timeout_s
        wakeup = Wakeup(clock=self._clock)
        self._waiters.add(wakeup)
        try:
            while not is_reached() and await wakeup.wait(deadline_s):
                pass
        finally:
            self._waiters.discard(wakeup)

    def _wake_waiters(self) -> None:
        for wakeup in self._waiters:
            wakeup.wake()

    def _on_lease_changed(self) -> None:
        self._wakeup.wake()
        self._expiry.wake()
        self._wake_waiters()

    def _on_lease_lost(self, lease: LocalLease, reason: str) -> None:
        self._acquirer.lose([lease], reason)

    def _on_expired(self, reason: str) -> None:
        self._acquirer.lose(self._leases.trusted(), reason)

    def _on_session_ended(self, session: Session, reason: str) -> None:
        self._registration.on_session_lost()
        self._acquirer.lose_session(session, reason)
        self._expiry.close_when_idle(session)
        self._wakeup.wake()

    async def _run(self) -> NoReturn:
        expiry = self._tasks.start(self._expiry.run(), name=_EXPIRY_TASK, critical=True)
        try:
            while True:
                await self._tick()
                self._problem_log.update(self.problem)
                await self._clock.sleep(_MIN_GAP_S)
                await self._wakeup.wait(self._next_tick_s())
        finally:
            self._tasks.cancel_task(expiry)

    def _next_tick_s(self) -> float:
        """Return when the next tick is due if nothing happens before."""
        now_s = self._clock.now_s()
        current = self._registration.current
        if self._not_before_s > now_s:
            return self._not_before_s
        if current is None or self._snapshot_s is None:
            return now_s + STANDBY_POLL_S
        if self._registration.is_draining or not self._leases.waiting():
            return self._snapshot_s + HEARTBEAT_S
        due_s = self._snapshot_s + self._standby_poll_s
        if self._registration.reclaimable is not None:
            due_s = min(due_s, current.registered_s + RECLAIM_WINDOW_S)
        return due_s

    async def _tick(self) -> None:
        session = self._holder.session if self._holder is not None else None
        if session is None or self._has_left or self._clock.now_s() < self._not_before_s:
            return
        try:
            current = self._registration.current
            if current is None or current.session is not session:
                current = await self._register(session)
            if current is not None:
                await self._tick_as_member(current)
            self._tick_problem = None
        except SessionEnded:
            return  # the monitor makes another one, and wakes this loop
        except (asyncpg.PostgresError, ConfigError) as error:
            self._tick_problem = str(error)
            self._not_before_s = self._clock.now_s() + _AFTER_FAILURE_S

    async def _register(self, session: Session) -> NodeSession | None:
        """Make a session this node's; None: something still runs under the previous one.

        Raises:
            ConfigError: A proxy pools transactions.
            SessionEnded: The session has ended.
            asyncpg.PostgresError: The server refused something.
        """
        await reject_transaction_pooling(session, is_thorough=self._snapshot_s is None)
        current = await self._registration.register(session)
        if current is None:
            return None
        self._peers.clear()
        self._plans.clear()
        await self._notifications.listen(current)
        return current

    async def _tick_as_member(self, current: NodeSession) -> None:
        await self._acquirer.release(current)
        if self._is_leaving:
            await self._leave(current)
            return
        await self._notifications.listen(current)
        await self._registration.publish_wanted(current)
        if self._registration.is_draining:
            self._is_drained = True
            self._wake_waiters()
        snapshot = await self._fetch_snapshot(current)
        if snapshot is None:
            return
        await self._peers.refresh(current, snapshot)
        await self._registration.fetch_reclaimable(current)
        await self._execute_plan(current, snapshot)

    async def _leave(self, current: NodeSession) -> None:
        try:
            if not self._leases.not_free():
                await self._registration.unregister(current)
                await self._notifications.unlisten_all(current)
        finally:
            self._has_left = True
            self._wake_waiters()

    async def _fetch_snapshot(self, current: NodeSession) -> ClusterSnapshot | None:
        """Take a snapshot; None: it shows that the session is not this node's."""
        sent_s = self._clock.now_s()
        [row] = await current.session.fetch(SNAPSHOT_SQL, current.id)
        snapshot = ClusterSnapshot.from_row(row, sent_s)
        if snapshot.is_standby:
            current.session.monitor.request_check()  # it knows whether that is what the connection string asks for
        if snapshot.backend != current.backend.pid:
            current.session.invalidate("another server process answers than the one that this session began with")
            self._acquirer.lose_session(current.session, "another server process answers on its session")
            return None
        self._snapshot_s = sent_s
        self._standby_poll_s = STANDBY_POLL_S * (1 - _JITTER * self._rng.random())
        lost = lost_locks(current.id, snapshot, self._leases.states())
        self._acquirer.lose(self._leases.of(lost), "its session does not hold the lock any more")
        self._expiry.renewed(snapshot.sent_s)
        for callback in tuple(self.on_snapshot):
            callback(snapshot)
        if not snapshot.is_registered:
            self._registration.on_session_lost()
            # At once, but not in a hot loop where something deletes the row again and again.
            self._not_before_s = current.registered_s + _AFTER_FAILURE_S
            return None
        return snapshot

    async def _execute_plan(self, current: NodeSession, snapshot: ClusterSnapshot) -> None:
        now_s = self._clock.now_s()
        registration = self._registration
        plan = self._plans.update(
            PlanInput(
                me=current.id,
                now_s=now_s,
                snapshot=snapshot,
                wanted={node.id: node.wanted for node in self._peers.nodes.values()}
                | {current.id: registration.wanted},
                states=self._leases.states(),
                version=self._leases.version,
                requests=self._notifications.take_requests(),
                reclaimable=registration.reclaimable,
                may_acquire=not registration.is_draining and now_s >= self._acquirer.retry_after_s,
            )
        )
        self._leases.apply(plan.revoke, LeaseEvent.REVOKE)
        await self._acquirer.release(current, plan.unclaimed_locks)
        if plan.acquire:
            await self._acquirer.acquire(current, plan.acquire)
        if self._request_backoff.is_due(plan.request):
            await current.session.fetch(_NOTIFY_SQL, list(request_payloads(plan.request, current.id)))
        waiting = [] if registration.is_draining else self._leases.waiting()
        await self._peers.update_holders(current.session, snapshot, waiting)
        self._peers.log_waiting(waiting)


async def _error_of(joining: Coroutine[Any, Any, None]) -> Exception | None:
    """Return what joining raised, for the reload: an error there is no fault of the daemon."""
    try:
        await joining
    except Exception as error:  # noqa: BLE001 - raised again by the reload
        return error
    return None
