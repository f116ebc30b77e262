"""How a connection becomes a node's session: settings, the end of the former one, the node's row and lock."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from supervisor.leases.trust import IDLE_SESSION_TIMEOUT_S

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.clock import Clock
    from supervisor.database.session import Session

# By SET, since a proxy may refuse unknown startup parameters (08P01). What each is for:
# idle_session_timeout: a frozen process, whose kernel goes on acknowledging; the only one that catches it.
# tcp_keepalives_*, tcp_user_timeout: a machine or a network that is gone; never sooner than the one above.
# client_connection_check_interval: an end of the connection while a statement runs.
# lock_timeout: these statements wait for nobody.
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
_SELF = "SELECT a.pid, a.backend_start FROM pg_catalog.pg_stat_activity a WHERE a.pid = pg_catalog.pg_backend_pid()"
_END_FORMER = """
    SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
    WHERE a.pid = $1 AND a.backend_start = $2 AND a.pid <> pg_catalog.pg_backend_pid()
"""
_JOIN = "SELECT supervisor.join_node($1, $2, $3, $4, $5, $6, $7) AS id"
_AGAIN_S = 0.02
# The former session ends within milliseconds where it can be ended at all.
_MOST_TRIES = 25


class Backend(NamedTuple):
    """A server process, told from later ones with the same number by its start."""

    pid: int
    start: datetime


class Identity(NamedTuple):
    """Who a node is, over all of its sessions.

    Attributes:
        name: Daemon, host and process in one.
        host: Where it runs.
        pid: Its process there.
        started: When it began.
        version: The daemon's.
    """

    name: str
    host: str
    pid: int
    started: datetime
    version: str


class Joined(NamedTuple):
    """A session that is a node's.

    Attributes:
        session: The connection.
        id: The node's row.
        backend: The server's process behind it.
        at_s: When it joined.
    """

    session: Session
    id: int
    backend: Backend
    at_s: float


def identify(daemon: str, version: str, *, clock: Clock) -> Identity:
    """Return who this process is as a node."""
    host, pid = socket.gethostname(), os.getpid()
    return Identity(f"{daemon}@{host}:{pid}", host, pid, clock.wall_time(), version)


async def join(
    session: Session,
    identity: Identity,
    wants: frozenset[int],
    former: Joined | None,
    *,
    may_end_former: bool,
    clock: Clock,
    idle_limit_s: float = IDLE_SESSION_TIMEOUT_S,
) -> Joined | None:
    """Make a session this node's; raises as `Session.do` does.

    Args:
        session: A session, new or this node's already.
        identity: Who joins.
        wants: The leases that it is ready to hold.
        former: This node's last session on this database. It may live on, unnoticed by the server, and hold locks.
        may_end_former: Whether nothing runs any more under these locks.
        clock: For the pauses while the server ends it.
        idle_limit_s: After how much silence the server ends the session.

    Returns:
        The node's session; None: the former one lives on, and may not be ended yet.
    """
    await session.execute_script(_SETTINGS.format(idle_ms=round(idle_limit_s * 1000)))
    [(pid, start)] = await session.fetch(_SELF)
    backend = Backend(pid, start)
    node = former.id if former is not None else None
    tries = 0
    while True:
        [(joined,)] = await session.fetch(
            _JOIN, node, identity.name, identity.host, identity.pid, identity.version, identity.started,
            sorted(wants),
        )  # fmt: skip
        if joined is not None:
            return Joined(session, joined, backend, clock.now_s())
        if former is not None and tries == 0:
            if not may_end_former:
                return None
            await session.fetch(_END_FORMER, *former.backend)
        tries += 1
        if tries >= _MOST_TRIES:
            node = None  # somebody else is that node: this one is a new one
        await clock.sleep(_AGAIN_S)
