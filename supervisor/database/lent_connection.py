"""A connection on loan: asyncpg's proxy, which refuses every call once the connection has been given back.

It is the same object that asyncpg's own pool hands out. This is the one file that knows what such a
proxy expects of its pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncpg.pool import PoolConnectionProxy

if TYPE_CHECKING:
    from collections.abc import Collection

    import asyncpg


class ProxyOwner:
    """What a proxy asks of its pool: that a changed schema is forgotten by all of its connections.

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
            connection._drop_local_statement_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - asyncpg's own way

    def _drop_type_cache(self) -> None:
        for connection in self._connections:
            connection._drop_local_type_cache()  # type: ignore[attr-defined]  # noqa: SLF001 - asyncpg's own way


def wrap(connection: asyncpg.Connection, siblings: ProxyOwner) -> Any:
    """Return the connection as a borrower sees it."""
    return PoolConnectionProxy(siblings, connection)  # type: ignore[arg-type]


def unwrap(lent: Any) -> asyncpg.Connection | None:
    """Return the connection that was lent, which the borrower cannot use any more; None if it was taken before."""
    connection: asyncpg.Connection | None = lent._detach()  # noqa: SLF001 - asyncpg's own way
    if connection is not None and not connection.is_closed():
        # Cursors and prepared statements of the borrower end too.
        connection._on_release()  # type: ignore[attr-defined]  # noqa: SLF001 - asyncpg's own way
    return connection
