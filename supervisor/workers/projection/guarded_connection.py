"""`ctx.tx`: asyncpg's connection, in a transaction that only the daemon ends, for as long as the call lasts."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from supervisor.errors import TransactionMisused
from supervisor.workers.projection.statement import transaction_command

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

_FORBIDDEN = frozenset({"close", "terminate", "reset"})


class GuardedConnection:
    """The calls of `asyncpg.Connection`, without those that would end its transaction.

    A nested `async with tx.transaction():` makes a savepoint, as it does in asyncpg. After the handler has returned,
    the connection and everything made from it, statements and cursors too, raises.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection: asyncpg.Connection | None = connection

    def _close(self) -> None:
        """Refuse every further call."""
        self._connection = None

    def _checked(self, query: object = None) -> Any:
        if self._connection is None:
            raise TransactionMisused(
                "ctx.tx is gone: it belongs to one call of the handler and ends with its return; use it before, and "
                "await every task that uses it"
            )
        if isinstance(query, str) and (command := transaction_command(query)) is not None:
            raise TransactionMisused(
                f"{command} is refused on ctx.tx: its transaction also moves the checkpoint, and ends when the "
                "handler returns (it commits) or raises (it is rolled back). For a part that may fail write "
                "`async with ctx.tx.transaction():`"
            )
        return self._connection

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.execute`."""
        return await self._checked(query).execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.executemany`."""
        return await self._checked(command).executemany(command, args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetch`."""
        return await self._checked(query).fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetchrow`."""
        return await self._checked(query).fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetchval`."""
        return await self._checked(query).fetchval(query, *args, **options)

    async def fetchmany(self, query: str, args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetchmany`."""
        return await self._checked(query).fetchmany(query, args, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        """See `asyncpg.Connection.prepare`."""
        return await self._checked(query).prepare(query, **options)

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.cursor`."""
        return self._checked(query).cursor(query, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _FORBIDDEN:
            raise TransactionMisused(f"ctx.tx.{name}() is refused: the connection is the daemon's own")
        found = getattr(self._checked(), name)
        return self._checked_method(name, found) if callable(found) else found

    def _checked_method(self, name: str, found: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that checks again when it is called: the handler may keep it."""
        if iscoroutinefunction(found):

            async def await_it(*args: Any, **options: Any) -> Any:
                return await getattr(self._checked(), name)(*args, **options)

            return await_it

        def call_it(*args: Any, **options: Any) -> Any:
            return getattr(self._checked(), name)(*args, **options)

        return call_it
