"""Tells a proxy that pools transactions: behind one, the locks of a session are anybody's.

Such a proxy gives a connection a server process for one transaction and then gives the process to another. So two
connections are watched in turns, one of them inside of a transaction: each must show one server process, always the
same, and not the other's. A single look would prove nothing, since an idle proxy hands out the process of last time.

All of it is in the simple protocol, because prepared statements are lost there too, and it leaves nothing behind:
no setting, no lock, no open transaction. The answer comes as a message of level INFO, which every client gets and no
server logs by default.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from supervisor.database.session import Session

_TELL_PID = "DO $$ BEGIN RAISE INFO '%', pg_catalog.pg_backend_pid(); END $$"
# A proxy that hands out its processes in turns shows each of them within so many.
_ROUNDS = 20
_LIMIT_S = 5.0
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_PROBLEM = (
    "a proxy between here and the server pools transactions, so that no lock and no LISTEN lasts ({evidence})."
    " Singletons and projections need a session of their own: connect to the server itself, or to a pool with"
    " pool_mode = session"
)


async def reject_transaction_pooling(session: Session, *, is_thorough: bool) -> None:
    """Make sure that a session is one; raises as `Session.do` does.

    Args:
        session: A new session, on which nothing has been set.
        is_thorough: Whether to watch also where no proxy is to be seen.

    Raises:
        ConfigError: It is not.
    """
    evidence = await _find_evidence(session, is_thorough=is_thorough)
    if evidence is not None:
        raise ConfigError(ConfigFault(session.monitor.server.source, "", _PROBLEM.format(evidence=evidence)))


async def _find_evidence(session: Session, *, is_thorough: bool) -> str | None:
    own = await session.execute(_server_pid)
    # A proxy makes numbers of its own up for cancelling, so one is seen by that; the absence of one is not.
    is_proxied = own != session.connected.connection.get_server_pid()
    if not is_proxied and not is_thorough:
        return None
    other: asyncpg.Connection | None = None
    try:
        other = await session.monitor.connector.connect(session.connected.endpoint)
        return await _watch(session, own, other, rounds=_ROUNDS if is_proxied else 1)
    except _LOST:
        # A second connection that is not to be had (53300, say) proves nothing.
        return None
    finally:
        if other is not None:
            other.terminate()


async def _watch(session: Session, own: int, other: asyncpg.Connection, *, rounds: int) -> str | None:
    others: int | None = None
    for _ in range(rounds):
        try:
            async with asyncio.timeout(_LIMIT_S):
                pid = await _server_pid(other, begin="BEGIN; ")
        except asyncpg.PostgresError as error:
            return f"it refuses a transaction: {error}"
        if pid == own:
            return f"two connections were given the server process {pid}"
        if others not in (None, pid):
            return f"one connection was given the server processes {others} and {pid}"
        others = pid
        again = await session.execute(_server_pid)
        if again != own:
            return f"one connection was given the server processes {own} and {again}"
        async with asyncio.timeout(_LIMIT_S):
            await other.execute("COMMIT")
    return None


async def _server_pid(connection: Any, begin: str = "") -> int:
    told: list[str] = []

    def hear(_: object, message: Any) -> None:
        told.append(message.message)

    connection.add_log_listener(hear)
    try:
        await connection.execute(begin + _TELL_PID)
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.remove_log_listener(hear)
    return int(told[-1])
