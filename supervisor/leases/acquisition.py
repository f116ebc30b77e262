"""How this node acquires, loses and releases leases: the lock on its session, then a new epoch on a pooled connection.

The epoch is not advanced on the session itself: a commit can wait, for a synchronous standby, say, and the session's
next snapshot must not. A row that a transaction of the former holder has locked is tried again; a transaction that
keeps it locked for long is terminated.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from supervisor.backoff import Backoff, delay_s
from supervisor.database.error_class import CONNECTION_ERRORS
from supervisor.database.schema.locks import LockSpace
from supervisor.database.session import SessionEnded
from supervisor.errors import SupervisorError
from supervisor.escaping import message_of
from supervisor.leases.lease import Lease
from supervisor.leases.lease_log import LeaseLog
from supervisor.leases.local_lease import LeaseEvent, LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.database.session import Session
    from supervisor.leases.local_lease import LocalLease, LocalLeases
    from supervisor.leases.registration import NodeSession
    from supervisor.runtime import Runtime

_TRY_SQL = "SELECT supervisor.try_lease_locks($1) AS ids"
_RELEASE_SQL = "SELECT supervisor.release_leases($1, $2)"
_ADVANCE_SQL = "SELECT t.id, t.epoch FROM supervisor.advance_epochs($1, $2, $3, $4, $5, $6) AS t"
# The transactions of former holders: the lease's lock is ours, and it has no newer epoch yet.
_TERMINATE_BLOCKERS_SQL = f"""
    SELECT l.pid, pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = {LockSpace.FENCED_TRANSACTION:d} AND l.objsubid = 2
        AND l.objid = ANY ($1::bigint[]::oid[])
        AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
"""  # noqa: S608 - a constant
_EXISTING_SQL = """
    SELECT l.id FROM supervisor.lease l
    WHERE (l.id, l.name) IN (SELECT n.id, n.name FROM unnest($1::int[], $2::text[]) AS n (id, name))
"""
# After an acquisition that failed another node has a turn, and then this one again.
_RETRY_BACKOFF = Backoff(initial_s=1.0, factor=2.0, max_s=15.0)
_MIN_RETRY_S = 0.5
# Workers may keep the whole pool for longer than a node should hold a lock that it does not use.
_ACQUIRE_TIMEOUT_S = 2.0
_STATEMENT_TIMEOUT_S = 3.0
_ADVANCE_RETRY_S = 0.03
_MAX_ADVANCE_RETRY_S = 0.2
_BLOCKED_AFTER_S = 1.0
_GIVE_UP_AFTER_S = 6.0
_BLOCKED = "a transaction that does not end keeps the row locked"
_ONE_ROLE = "Let all nodes log in as one role, or GRANT pg_signal_backend to this one's"
_PREPARED = "Look at pg_prepared_xacts, and say COMMIT PREPARED or ROLLBACK PREPARED"


class Acquired(NamedTuple):
    """Leases that this node holds from now on.

    Attributes:
        epochs: The epoch of each.
        incarnation: Drawn for this acquisition.
    """

    epochs: Mapping[int, int]
    incarnation: UUID


class LeaseAcquirer:
    """Acquires, loses and releases the leases of one node.

    Attributes:
        log: The journal's entries about it.
        retry_after_s: Until when nothing is acquired, because the last acquisition failed.
    """

    def __init__(
        self,
        database: Database,
        node: str,
        leases: LocalLeases,
        *,
        runtime: Runtime,
        on_change: Callable[[], object],
    ) -> None:
        self.log = LeaseLog(clock=runtime.clock, tasks=runtime.tasks)
        self.retry_after_s = float("-inf")
        self._database = database
        self._node = node
        self._leases = leases
        self._clock = runtime.clock
        self._rng = runtime.rng
        self._tasks = runtime.tasks
        self._on_change = on_change
        self._problem: str | None = None
        self._failures = 0
        # Leases that could not be acquired: their rows may have been deleted.
        self._stale_ids: set[int] = set()

    @property
    def problem(self) -> str | None:
        """Why the last acquisition failed; None: it did not, or that was a while ago."""
        is_recent = self._clock.now_s() < self.retry_after_s + _MIN_RETRY_S + _RETRY_BACKOFF.max_s
        return self._problem if is_recent else None

    def lose(self, leases: Iterable[LocalLease], reason: str) -> None:
        """Have what runs under these leases cancelled, and log it once for all."""
        for local in list(leases):
            epoch = local.lease.epoch if local.lease is not None else None
            if local.apply(LeaseEvent.LOST) and local.state is LeaseState.LOST:
                self.log.record("lease.lost", local.name, epoch=epoch, reason=reason)

    def lose_session(self, session: Session, reason: str) -> None:
        """Note that every lock of a session is gone."""
        self.lose((local for local in self._leases if local.session is session), reason)

    async def release(self, current: NodeSession, unclaimed: tuple[int, ...] = ()) -> None:
        """Release the leases under which nothing runs any more; raises as `Session.execute` does.

        Args:
            current: This node's session.
            unclaimed: Further locks of the session, which no lease of this node uses.
        """
        releasing = self._leases.in_states(LeaseState.RELEASING)
        for local in releasing:
            if local.session is not current.session:
                local.apply(LeaseEvent.RELEASED)  # the lock went with its session
                if local.session is None or local.session.monitor is not current.session.monitor:
                    self._stale_ids.add(local.id or 0)  # of another database
        ours = [local for local in releasing if local.session is current.session]
        if ids := {local.id for local in ours if local.id is not None} | set(unclaimed):
            await current.session.fetch(_RELEASE_SQL, sorted(ids), current.id)
        for local in ours:
            if local.apply(LeaseEvent.RELEASED) and local.released_epoch is not None:
                self.log.record("lease.released", local.name, epoch=local.released_epoch)
        if self._stale_ids:
            self._leases.clear_ids(self._stale_ids)
            self._stale_ids.clear()

    async def acquire(self, current: NodeSession, ids: tuple[int, ...]) -> None:
        """Try the locks of leases; a background task advances the epochs of those that were free.

        Raises as `Session.execute` does.
        """
        trying = self._leases.apply(ids, LeaseEvent.TRY)
        for local in trying:
            local.session = current.session
        try:
            [(locked,)] = await current.session.fetch(_TRY_SQL, [local.id for local in trying])
        except SessionEnded:
            raise
        except asyncpg.PostgresError:
            self._leases.apply(ids, LeaseEvent.REFUSED)
            raise
        self._leases.apply(tuple(set(ids).difference(locked)), LeaseEvent.REFUSED)
        if locked:
            self._tasks.start(self._finish(current, tuple(locked)), name="leases: acquire")

    async def _finish(self, current: NodeSession, ids: tuple[int, ...]) -> None:
        left, reason = await advance_epochs(
            self._database,
            {local.id: local.name for local in self._leases.of(ids) if local.id is not None},
            node=self._node,
            current=current,
            clock=self._clock,
            is_acquiring=lambda lease: self._is_acquiring(current, lease),
            on_acquired=lambda acquired: self._on_acquired(current, acquired),
        )
        left = tuple(lease for lease in left if self._is_acquiring(current, lease))
        if left:
            self._problem = f"{len(left)} of its leases could not be acquired: {reason}"
            backoff_s = delay_s(_RETRY_BACKOFF, self._failures, self._rng.random())
            self.retry_after_s = self._clock.now_s() + _MIN_RETRY_S + backoff_s
            self._failures += 1
            # Released: another node may be able to acquire them.
            self._stale_ids.update(left)
            self._leases.apply(left, LeaseEvent.REVOKE)
            self._on_change()
        else:
            self._failures, self._problem = 0, None

    def _is_acquiring(self, current: NodeSession, lease: int) -> bool:
        return any(
            local.state is LeaseState.ACQUIRING and local.session is current.session
            for local in self._leases.of((lease,))
        )

    def _on_acquired(self, current: NodeSession, acquired: Acquired) -> None:
        for local in self._leases.of(acquired.epochs):
            if local.session is not current.session or local.id is None:
                continue
            epoch = acquired.epochs[local.id]
            if local.apply(LeaseEvent.ACQUIRED, Lease(local.name, epoch, local.id, acquired.incarnation)):
                self.log.record("lease.acquired", local.name, epoch=epoch)


async def advance_epochs(
    database: Database,
    names: Mapping[int, str],
    *,
    node: str,
    current: NodeSession,
    clock: Clock,
    is_acquiring: Callable[[int], bool],
    on_acquired: Callable[[Acquired], object],
) -> tuple[tuple[int, ...], str]:
    """Give leases a new epoch: some at once, and some when other transactions have unlocked their rows.

    Args:
        database: Where pooled connections come from.
        names: The names of the leases whose locks the session of `current` holds, by their ids.
        node: This node's name.
        current: This node's session.
        clock: For pauses.
        is_acquiring: Whether a lease is still to be acquired.
        on_acquired: Called with each part.

    Returns:
        Those that could not be acquired, and why.
    """
    began_s, pause_s, has_terminated = clock.now_s(), _ADVANCE_RETRY_S, False
    left, reason = set(names), _BLOCKED
    try:
        while left := {lease for lease in left if is_acquiring(lease)}:
            ids = sorted(left)
            left_names = [names[lease] for lease in ids]
            incarnation = uuid4()
            rows = await _fetch(
                database, _ADVANCE_SQL, ids, left_names, current.backend.pid, current.id, node, incarnation
            )
            if epochs := {row["id"]: row["epoch"] for row in rows}:
                left -= epochs.keys()
                on_acquired(Acquired(epochs, incarnation))
            waited_s = clock.now_s() - began_s
            if not left or waited_s >= _GIVE_UP_AFTER_S:
                break
            if waited_s >= _BLOCKED_AFTER_S and not has_terminated:
                has_terminated = True
                reason = await _terminate_blockers(database, sorted(left))
                if len(await _fetch(database, _EXISTING_SQL, ids, left_names)) < len(ids):
                    return tuple(sorted(left)), "its row was deleted"
            else:
                await clock.sleep(pause_s)
                pause_s = min(_MAX_ADVANCE_RETRY_S, pause_s * 1.5)
    except (*CONNECTION_ERRORS, SupervisorError) as error:
        return tuple(sorted(left)), _message(error)
    return tuple(sorted(left)), reason


async def _terminate_blockers(database: Database, ids: list[int]) -> str:
    """Terminate the transactions that keep leases locked; return why a lease may be locked even then."""
    try:
        rows = await _fetch(database, _TERMINATE_BLOCKERS_SQL, ids)
    except asyncpg.InsufficientPrivilegeError as error:
        raise SupervisorError(f"{_BLOCKED}, and this node may not end it: {_message(error)}. {_ONE_ROLE}") from error
    return f"{_BLOCKED}: it is a prepared one. {_PREPARED}" if any(row["pid"] is None for row in rows) else _BLOCKED


async def _fetch(database: Database, query: str, *args: object) -> list[asyncpg.Record]:
    try:
        async with asyncio.timeout(_ACQUIRE_TIMEOUT_S):
            pool, connection = await database.acquire(None)
    except TimeoutError as error:
        raise TimeoutError(f"the pool gave no connection within {_ACQUIRE_TIMEOUT_S:g}s") from error
    try:
        rows: list[asyncpg.Record] = await connection.fetch(query, *args, timeout=_STATEMENT_TIMEOUT_S)
        return rows
    finally:
        await database.release(pool, connection)


def _message(error: BaseException) -> str:
    return message_of(error) or f"the database did not answer ({type(error).__name__})"
