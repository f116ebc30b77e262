"""Giving leases whose locks this node's session holds a new epoch, on a connection of the pool.

Not on the session itself: a commit can wait, for a standby, say, and the session's next look must not. Rows that
transactions of the former holder have locked are asked for again; who keeps one locked for long is ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.leases.joining import Joined

_TAKE = "SELECT t.id, t.epoch FROM supervisor.take_leases($1, $2, $3, $4, $5, $6) AS t"
# Those of former holders: the lease's lock is ours, and it has no newer epoch yet.
_END_STUCK = """
    SELECT l.pid, pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 1885827843 AND l.objid = ANY ($1::bigint[]::oid[]) AND l.objsubid = 2
        AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
"""
_THERE = """
    SELECT l.id FROM supervisor.lease l
    WHERE (l.id, l.name) IN (SELECT n.id, n.name FROM unnest($1::int[], $2::text[]) AS n (id, name))
"""
# Workers that have the whole pool to themselves keep it for longer than anybody should hold a lock for nothing.
_BORROW_LIMIT_S = 2.0
_STATEMENT_LIMIT_S = 3.0
_AGAIN_S = 0.03
_AGAIN_AT_MOST_S = 0.2
_STUCK_AFTER_S = 1.0
_GIVE_UP_AFTER_S = 6.0
_STUCK = "a transaction that does not end keeps the row locked"
_ONE_ROLE = "Let all nodes log in as one role, or GRANT pg_signal_backend to this one's"
_PREPARED = "Look at pg_prepared_xacts, and say COMMIT PREPARED or ROLLBACK PREPARED"
_FAILED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, SupervisorError)


class Taken(NamedTuple):
    """Leases that this node holds from now on.

    Attributes:
        epochs: The epoch of each.
        incarnation: Drawn for this acquisition.
    """

    epochs: Mapping[int, int]
    incarnation: UUID


class Taker:
    """Takes leases whose locks are held."""

    def __init__(self, database: Database, node: str, *, clock: Clock) -> None:
        self._database = database
        self._node = node
        self._clock = clock

    async def take(
        self,
        leases: Mapping[int, str],
        joined: Joined,
        *,
        is_open: Callable[[int], bool],
        on_taken: Callable[[Taken], object],
    ) -> tuple[tuple[int, ...], str]:
        """Take leases, some of them at once and some when others let go of their rows.

        Args:
            leases: The names of those whose locks the session of `joined` holds, by their ids.
            joined: This node's session.
            is_open: Whether a lease is still to be taken.
            on_taken: Called with each part.

        Returns:
            Those that were not to be had, and why.
        """
        began_s, pause_s, has_ended_stuck = self._clock.now_s(), _AGAIN_S, False
        left, reason = set(leases), _STUCK
        try:
            while left := {lease for lease in left if is_open(lease)}:
                ids = sorted(left)
                names = [leases[lease] for lease in ids]
                taken = await self._bump(ids, names, joined)
                if taken.epochs:
                    left -= taken.epochs.keys()
                    on_taken(taken)
                waited_s = self._clock.now_s() - began_s
                if not left or waited_s >= _GIVE_UP_AFTER_S:
                    break
                if waited_s >= _STUCK_AFTER_S and not has_ended_stuck:
                    has_ended_stuck = True
                    reason = await self._end_stuck(sorted(left))
                    if len(await self._fetch(_THERE, ids, names)) < len(ids):
                        return tuple(sorted(left)), "somebody has deleted its row"
                else:
                    await self._clock.sleep(pause_s)
                    pause_s = min(_AGAIN_AT_MOST_S, pause_s * 1.5)
        except _FAILED as error:
            return tuple(sorted(left)), _words(error)
        return tuple(sorted(left)), reason

    async def _end_stuck(self, leases: list[int]) -> str:
        """End the transactions that keep leases locked; return why those are still there that will be afterwards."""
        try:
            rows = await self._fetch(_END_STUCK, leases)
        except asyncpg.InsufficientPrivilegeError as error:
            raise SupervisorError(f"{_STUCK}, and this node may not end it: {_words(error)}. {_ONE_ROLE}") from error
        return f"{_STUCK}: it is a prepared one. {_PREPARED}" if any(row["pid"] is None for row in rows) else _STUCK

    async def _bump(self, ids: list[int], names: list[str], joined: Joined) -> Taken:
        incarnation = uuid4()
        rows = await self._fetch(_TAKE, ids, names, joined.backend.pid, joined.id, self._node, incarnation)
        return Taken({row["id"]: row["epoch"] for row in rows}, incarnation)

    async def _fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        database = self._database
        try:
            async with asyncio.timeout(_BORROW_LIMIT_S):
                pool, connection = await database.acquire(None)
        except TimeoutError as error:
            raise TimeoutError(f"the pool gave no connection within {_BORROW_LIMIT_S:g}s") from error
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args, timeout=_STATEMENT_LIMIT_S)
            return rows
        finally:
            await database.release(pool, connection)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or f"the database did not answer ({type(error).__name__})"
