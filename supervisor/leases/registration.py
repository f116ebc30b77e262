"""This node's row in the database, its session, and what it publishes there."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from supervisor.database.error_class import ErrorClass, classify
from supervisor.database.schema.grants import DAEMON_GRANTS, listed
from supervisor.database.session import SessionEnded
from supervisor.errors import ConnectAttemptsExhausted, DatabaseAccessDenied, SchemaIncompatible
from supervisor.escaping import message_of
from supervisor.leases.local_lease import LeaseState
from supervisor.leases.plan import RECLAIM_WINDOW_S, Reclaimable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.database.session import Session, SessionHolder
    from supervisor.leases.local_lease import LocalLeases

# By SET, since a proxy may refuse unknown startup parameters (08P01). What each is for:
# idle_session_timeout: a frozen process, whose kernel goes on acknowledging; the only setting that catches it.
# tcp_keepalives_*, tcp_user_timeout: a machine or a network that is gone; never sooner than the one above.
# client_connection_check_interval: the end of the connection while a statement runs.
# lock_timeout: these statements never wait for a lock.
_SETTINGS = """
    SET idle_session_timeout = '{idle_ms}ms';
    SET client_connection_check_interval = '1s';
    SET tcp_keepalives_idle = '5s';
    SET tcp_keepalives_interval = '3s';
    SET tcp_keepalives_count = 4;
    SET tcp_user_timeout = '{idle_ms}ms';
    SET lock_timeout = '500ms';
    SET idle_in_transaction_session_timeout = '10s';
    SET default_transaction_isolation = 'read committed';
"""
_BACKEND_SQL = (
    "SELECT a.pid, a.backend_start FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()"
)
_TERMINATE_SQL = """
    SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
    WHERE a.pid = $1 AND a.backend_start = $2 AND a.pid <> pg_catalog.pg_backend_pid()
"""
_JOIN_SQL = "SELECT supervisor.join_node($1, $2, $3, $4, $5, $6, $7) AS id"
_IDS_SQL = "SELECT i.name, i.id FROM supervisor.lease_ids($1) AS i"
_WANTED_SQL = "SELECT supervisor.set_wanted_leases($1, $2) AS is_registered"
_RECLAIMABLE_SQL = (
    "SELECT l.id, l.node_id FROM supervisor.lease l WHERE l.id = ANY ($1) AND (l.node_id IS NULL OR l.node_id = $2)"
)
_LEAVE_SQL = "SELECT supervisor.leave_node($1)"
_RETRY_S = 0.02
# The previous session ends within milliseconds where it can be ended at all.
_MAX_TRIES = 25
_MAX_START_TRIES = 20
_START_RETRY_S = 0.25


class BackendId(NamedTuple):
    """A server process; its start distinguishes it from later ones with the same number."""

    pid: int
    start: datetime


class NodeIdentity(NamedTuple):
    """What identifies a node over all of its sessions.

    Attributes:
        name: Daemon, host and process in one.
        host: Where it runs.
        pid: Its process there.
        started: When the process began.
        version: The daemon's.
    """

    name: str
    host: str
    pid: int
    started: datetime
    version: str


class NodeSession(NamedTuple):
    """A session that is registered as a node's.

    Attributes:
        session: The connection.
        id: The node's row.
        backend: The server process behind it.
        registered_s: When it was registered.
    """

    session: Session
    id: int
    backend: BackendId
    registered_s: float


def node_identity(daemon: str, version: str, *, clock: Clock) -> NodeIdentity:
    """Return the identity of this process as a node."""
    host, pid = socket.gethostname(), os.getpid()
    return NodeIdentity(f"{daemon}@{host}:{pid}", host, pid, clock.wall_time(), version)


class NodeRegistration:
    """What the database knows of this node.

    Attributes:
        current: Its session; None: it has none at the moment, or is to register again.
        is_draining: Whether it acquires nothing any more.
    """

    def __init__(self, identity: NodeIdentity, leases: LocalLeases, *, clock: Clock, idle_timeout_s: float) -> None:
        self.current: NodeSession | None = None
        self.is_draining = False
        self._identity = identity
        self._previous: NodeSession | None = None
        self._leases = leases
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._published: frozenset[int] | None = None
        self._reclaimable = Reclaimable()

    @property
    def wanted(self) -> frozenset[int]:
        """What this node is ready to hold now."""
        return frozenset() if self.is_draining else self._leases.wanted()

    @property
    def reclaimable(self) -> Reclaimable | None:
        """While others may yet come back: the leases that may be acquired all the same. None: all may."""
        current = self.current
        if current is not None and self._clock.now_s() >= current.registered_s + RECLAIM_WINDOW_S:
            return None
        return self._reclaimable

    async def register(self, session: Session) -> NodeSession | None:
        """Make a session this node's, again if it is already; raises as `Session.execute` does.

        Returns:
            The node's session; None: the previous one is open, and something still runs under its locks.
        """
        if self._previous is not None and self._previous.session.monitor is not session.monitor:
            self._previous = None  # it may be another database
        # Even on the same one, after a restore, a failover or in a new schema, a row's id may be another lease's.
        self._leases.clear_ids()
        self._published = None
        await self._fetch_ids(session)
        wanted = self.wanted
        registered = await self._register(session, wanted)
        if registered is None:
            return None
        self.current = self._previous = registered
        await self.fetch_reclaimable(registered)
        self._published = wanted
        return registered

    async def _register(self, session: Session, wanted: frozenset[int]) -> NodeSession | None:
        await session.execute_script(_SETTINGS.format(idle_ms=round(self._idle_timeout_s * 1000)))
        [(pid, start)] = await session.fetch(_BACKEND_SQL)
        # The previous session may be open, unnoticed by the server, and hold locks.
        identity, previous = self._identity, self._previous
        node = previous.id if previous is not None else None
        tries = 0
        while True:
            [(registered,)] = await session.fetch(
                _JOIN_SQL, node, identity.name, identity.host, identity.pid, identity.version, identity.started,
                sorted(wanted),
            )  # fmt: skip
            if registered is not None:
                return NodeSession(session, registered, BackendId(pid, start), self._clock.now_s())
            if previous is not None and tries == 0:
                if self._leases.in_states(LeaseState.LOST):
                    return None
                await session.fetch(_TERMINATE_SQL, *previous.backend)
            tries += 1
            if tries >= _MAX_TRIES:
                node = None  # another process is that node: register as a new one
            await self._clock.sleep(_RETRY_S)

    def on_session_lost(self) -> None:
        """Note that the session has ended, or is not this node's any more."""
        self.current = None

    async def publish_wanted(self, current: NodeSession) -> None:
        """Publish what this node wants, if that has changed; raises as `Session.execute` does."""
        await self._fetch_ids(current.session)
        wanted = self.wanted
        if wanted == self._published:
            return
        [(is_registered,)] = await current.session.fetch(_WANTED_SQL, current.id, sorted(wanted))
        if is_registered:
            self._published = wanted
        else:
            self.on_session_lost()

    async def unregister(self, current: NodeSession) -> None:
        """Delete the node's row; every lock is released. Raises as `Session.execute` does."""
        await current.session.fetch(_LEAVE_SQL, current.id)

    async def fetch_reclaimable(self, current: NodeSession) -> None:
        """Fetch which leases may be acquired already; raises as `Session.execute` does."""
        if self.reclaimable is None:
            return
        rows = await current.session.fetch(_RECLAIMABLE_SQL, sorted(self.wanted), current.id)
        own = frozenset(row["id"] for row in rows if row["node_id"] is not None)
        self._reclaimable = Reclaimable(own, frozenset(row["id"] for row in rows) - own)

    async def _fetch_ids(self, session: Session) -> None:
        if names := self._leases.without_id():
            rows = await session.fetch(_IDS_SQL, names)
            self._leases.set_ids({row["name"]: row["id"] for row in rows})


async def register_at_start(
    database: Database, holder: SessionHolder, register: Callable[[Session], Awaitable[object]], *, clock: Clock
) -> None:
    """Register as soon as the database is up; an outage meanwhile is waited out.

    Raises:
        ConfigError: `register` found that the connection string cannot serve a node.
        DatabaseAccessDenied: A privilege is missing, or the server is read-only.
        SchemaIncompatible: The SQL schema does not fit.
        ConnectAttemptsExhausted: All tries failed.
    """
    last: BaseException | None = None
    for _ in range(_MAX_START_TRIES):
        await database.wait_until_up()
        session = holder.session
        try:
            if session is not None:
                await register(session)
                return
        except SessionEnded as error:
            last = error
            await database.monitor.check_now()  # after an outage, wait for its end instead of trying again at once
        except asyncpg.PostgresError as error:
            _raise_if_permanent(error)
            last = error
        await clock.sleep(_START_RETRY_S)
    raise ConnectAttemptsExhausted(f"gave up joining the other nodes after {_MAX_START_TRIES} tries: {last}") from last


def _raise_if_permanent(error: asyncpg.PostgresError) -> None:
    message = f"{message_of(error)} ({error.sqlstate})"
    if classify(error) is ErrorClass.ACCESS_DENIED:
        raise DatabaseAccessDenied(
            f"This role lacks privileges that a node needs: {message}. It needs {listed(DAEMON_GRANTS)}."
        ) from error
    if classify(error) is ErrorClass.READ_ONLY:
        raise DatabaseAccessDenied(
            f"Singletons and projections need a server that can be written: {message}"
        ) from error
    if error.sqlstate[:2] in ("42", "3F"):
        raise SchemaIncompatible(
            f"The SQL schema is not what this pgsupervisor needs: {message}. Run `pgsupervisor migrate`."
        ) from error
