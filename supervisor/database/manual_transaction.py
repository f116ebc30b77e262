"""A transaction that our own SQL begins and ends, on a connection on loan, such that asyncpg knows of it.

BEGIN and the fence travel together, and so do the checkpoint and COMMIT: asyncpg's own `transaction()` would take a
round trip for each. This is the one file that knows what asyncpg has to be told for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncpg.transaction import Transaction

if TYPE_CHECKING:
    import asyncpg


def raw_connection(lent: Any) -> asyncpg.Connection:
    """Return the connection behind a loan of the pool.

    Raises:
        asyncpg.InterfaceError: It has been given back.
    """
    connection: asyncpg.Connection | None = lent._con  # noqa: SLF001 - as `lend` has it
    if connection is None:
        from asyncpg import InterfaceError  # noqa: PLC0415 - an error's own

        raise InterfaceError("the connection has been given back to the pool")
    return connection


def mark_begun(connection: asyncpg.Connection) -> None:
    """Note that a transaction has begun: whoever calls `connection.transaction()` now gets a savepoint."""
    connection._top_xact = Transaction(connection, "read_committed", False, False)  # type: ignore[attr-defined]  # noqa: SLF001 - asyncpg's own way


def mark_ended(connection: asyncpg.Connection) -> None:
    """Note that the transaction is about to end: what was made in it (cursors, savepoints) is void from now on."""
    connection._top_xact = None  # type: ignore[attr-defined]  # noqa: SLF001 - asyncpg's own way
    connection._pool_release_ctr += 1  # type: ignore[attr-defined]  # noqa: SLF001 - asyncpg's own way
