"""`ctx.tx`: asyncpg's connection, in a transaction that only the daemon ends, for as long as the call lasts."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from supervisor.errors import TransactionMisused
from supervisor.workers.statement import transaction_command

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

_NOT_YOURS = frozenset({"close", "terminate", "reset"})


class GuardedConnection:
    """The calls of `asyncpg.Connection`, without those that would end its transaction.

    A nested `async with tx.transaction():` makes a savepoint, as it does in asyncpg. What is left of it after the
    handler has returned, statements and cursors too, raises.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection: asyncpg.Connection | None = connection

    def _close(self) -> None:
        """Take it away from whoever has it."""
        self._connection = None

    def _use(self, query: object = None) -> Any:
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
        return await self._use(query).execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.executemany`."""
        return await self._use(command).executemany(command, args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetch`."""
        return await self._use(query).fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetchrow`."""
        return await self._use(query).fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetchval`."""
        return await self._use(query).fetchval(query, *args, **options)

    async def fetchmany(self, query: str, args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.fetchmany`."""
        return await self._use(query).fetchmany(query, args, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        """See `asyncpg.Connection.prepare`."""
        return await self._use(query).prepare(query, **options)

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        """See `asyncpg.Connection.cursor`."""
        return self._use(query).cursor(query, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _NOT_YOURS:
            raise TransactionMisused(f"ctx.tx.{name}() is refused: the connection is the daemon's own")
        found = getattr(self._use(), name)
        return self._still(name, found) if callable(found) else found

    def _still(self, name: str, found: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that looks again when it is called: it may be kept, too."""
        if iscoroutinefunction(found):

            async def await_it(*args: Any, **options: Any) -> Any:
                return await getattr(self._use(), name)(*args, **options)

            return await_it

        def call_it(*args: Any, **options: Any) -> Any:
            return getattr(self._use(), name)(*args, **options)

        return call_it
