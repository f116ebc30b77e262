"""Detects a proxy that pools transactions: behind one, the locks of a session do not stay with it.

Such a proxy gives a connection a server process for one transaction and then gives the process to another connection.
So two connections are watched in turns, one of them inside a transaction: each must show one server process, always
the same, and not the other's. A single query would prove nothing, since an idle proxy hands out the last process
again.

All of it uses the simple protocol, because such a proxy loses prepared statements too, and it leaves nothing behind:
no setting, no lock, no open transaction. The answer comes as a message of level INFO, which every client gets and no
server logs by default.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.database.error_class import CONNECTION_ERRORS
from supervisor.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from supervisor.database.session import Session

_SHOW_PID = "DO $$ BEGIN RAISE INFO '%', pg_catalog.pg_backend_pid(); END $$"
# A proxy that hands out its processes in turns shows each of them within so many.
_ROUNDS = 20
_TIMEOUT_S = 5.0
_PROBLEM = (
    "a proxy between here and the server pools transactions, so that no lock and no LISTEN lasts ({evidence})."
    " Singletons and projections need a session of their own: connect to the server itself, or to a pool with"
    " pool_mode = session"
)


async def reject_transaction_pooling(session: Session, *, is_thorough: bool) -> None:
    """Make sure that a session keeps one server process; raises as `Session.execute` does.

    Args:
        session: A new session, on which nothing has been set.
        is_thorough: Whether to check also where no proxy shows itself.

    Raises:
        ConfigError: It does not.
    """
    evidence = await _find_evidence(session, is_thorough=is_thorough)
    if evidence is not None:
        raise ConfigError(ConfigFault(session.monitor.server.source, "", _PROBLEM.format(evidence=evidence)))


async def _find_evidence(session: Session, *, is_thorough: bool) -> str | None:
    own = await session.execute(_server_pid)
    # A proxy invents process ids for cancelling, and so shows itself; equal ids do not prove that there is no proxy.
    is_proxied = own != session.connected.connection.get_server_pid()
    if not is_proxied and not is_thorough:
        return None
    other: asyncpg.Connection | None = None
    try:
        other = await session.monitor.connector.connect(session.connected.endpoint)
        return await _compare(session, own, other, rounds=_ROUNDS if is_proxied else 1)
    except CONNECTION_ERRORS:
        # A second connection that cannot be made (53300, say) proves nothing.
        return None
    finally:
        if other is not None:
            other.terminate()


async def _compare(session: Session, own: int, other: asyncpg.Connection, *, rounds: int) -> str | None:
    others: int | None = None
    for _ in range(rounds):
        try:
            async with asyncio.timeout(_TIMEOUT_S):
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
        async with asyncio.timeout(_TIMEOUT_S):
            await other.execute("COMMIT")
    return None


async def _server_pid(connection: Any, begin: str = "") -> int:
    messages: list[str] = []

    def on_message(_: object, message: Any) -> None:
        messages.append(message.message)

    connection.add_log_listener(on_message)
    try:
        await connection.execute(begin + _SHOW_PID)
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.remove_log_listener(on_message)
    return int(messages[-1])
