"""Every private attribute of asyncpg that this project uses, in one file.

asyncpg has no public way for four things that the daemon needs: pooled connections of a pool that is not asyncpg's own
(`wrap`, `unwrap`), a transaction that our own SQL begins and ends (`mark_begun`, `mark_ended`: BEGIN and the fence
travel in one round trip, and so do the checkpoint and COMMIT), keepalive on the socket, and a tap on the server's last
message (`transport_of`).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.transaction import Transaction

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 6), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
_USER_TIMEOUT_MS = 12_000


class ProxyOwner:
    """The pool as a proxy expects it: a changed schema is forgotten by all connections of the pool.

    Args:
        connections: The pool's connections, kept up to date by the pool.
    """

    __slots__ = ("_connections", "_pool")

    def __init__(self, connections: Collection[asyncpg.Connection]) -> None:
        self._connections = connections
        # asyncpg asks the holder of a connection for its pool; here they are one.
        self._pool = self

    def _drop_statement_cache(self) -> None:
        for connection in self._connections:
            connection._drop_local_statement_cache()  # type: ignore[attr-defined]  # noqa: SLF001

    def _drop_type_cache(self) -> None:
        for connection in self._connections:
            connection._drop_local_type_cache()  # type: ignore[attr-defined]  # noqa: SLF001


def wrap(connection: asyncpg.Connection, siblings: ProxyOwner) -> Any:
    """Return asyncpg's proxy of the connection, which refuses every call once the connection was released."""
    return PoolConnectionProxy(siblings, connection)  # type: ignore[arg-type]


def unwrap(proxy: Any) -> asyncpg.Connection | None:
    """Return the connection behind a proxy, which is void from now on; None: it was unwrapped before."""
    connection: asyncpg.Connection | None = proxy._detach()  # noqa: SLF001
    if connection is not None and not connection.is_closed():
        # Cursors and prepared statements made through the proxy end too.
        connection._on_release()  # type: ignore[attr-defined]  # noqa: SLF001
    return connection


def raw_connection(proxy: Any) -> asyncpg.Connection:
    """Return the connection behind a proxy of the pool.

    Raises:
        asyncpg.InterfaceError: It has been released.
    """
    connection: asyncpg.Connection | None = proxy._con  # noqa: SLF001
    if connection is None:
        raise asyncpg.InterfaceError("the connection has been given back to the pool")
    return connection


def mark_begun(connection: asyncpg.Connection) -> None:
    """Note that a transaction has begun: a call of `connection.transaction()` now makes a savepoint."""
    connection._top_xact = Transaction(connection, "read_committed", False, False)  # type: ignore[attr-defined]  # noqa: SLF001


def mark_ended(connection: asyncpg.Connection) -> None:
    """Note that the transaction is about to end: what was made in it (cursors, savepoints) is void from now on."""
    connection._top_xact = None  # type: ignore[attr-defined]  # noqa: SLF001
    connection._pool_release_ctr += 1  # type: ignore[attr-defined]  # noqa: SLF001


def transport_of(connection: asyncpg.Connection) -> asyncio.Transport:
    """Return the transport of a connection."""
    transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    return transport


def keep_alive(connection: asyncpg.Connection) -> None:
    """Have the kernel notice within about 12 s that the peer's machine is gone; its default is two hours."""
    peer = transport_of(connection).get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        peer.setsockopt(socket.IPPROTO_TCP, option, value)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
