"""`ctx.db`: asyncpg's pool as one run of a worker uses it, which waits while the database is unreachable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from asyncpg import Record

    from supervisor.database.pool import Pool
    from supervisor.stop_signal import StopSignal


class ConnectionSource(Protocol):
    """Where a run's connections come from."""

    async def acquire(self, stop: StopSignal | None) -> tuple[Pool, Any]:
        """Return a connection and the pool to release it to, however long that takes."""

    async def release(self, pool: Pool, connection: Any) -> None:
        """Give a connection back."""

    def note_use(self, error: BaseException | None) -> None:
        """Learn how the use of a connection ended, which may be the first sign of an outage."""


class WorkerPool:
    """The calls of `asyncpg.Pool`, each of which waits until the database is there.

    A statement that is in flight when the connection is lost raises asyncpg's own error: only the
    worker knows whether it may be repeated. Once the worker is to stop, a call that would have to wait
    for the database raises `DatabaseUnavailable`.
    """

    __slots__ = ("_contexts", "_source", "_stop")

    def __init__(self, source: ConnectionSource, stop: StopSignal) -> None:
        self._source = source
        self._stop = stop
        self._contexts: dict[int, AcquireContext] | None = None

    def acquire(self) -> AcquireContext:
        """Acquire a connection: `async with ctx.db.acquire() as connection:`."""
        return AcquireContext(self, self._source, self._stop)

    async def release(self, connection: Any) -> None:
        """Give back a connection taken with `await ctx.db.acquire()`."""
        context = (self._contexts or {}).pop(id(connection), None)
        if context is not None:
            await context.end(None)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Execute one or several statements; see `asyncpg.Connection.execute`."""
        return str(await self._call("execute", query, *args, timeout=timeout))

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:
        """Execute a statement for each set of arguments, in one transaction."""
        await self._call("executemany", command, args, timeout=timeout)

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Record]:
        """Return all rows."""
        rows: list[Record] = await self._call("fetch", query, *args, timeout=timeout)
        return rows

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Record | None:
        """Return the first row, or None."""
        row: Record | None = await self._call("fetchrow", query, *args, timeout=timeout)
        return row

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """Return one value of the first row, or None."""
        return await self._call("fetchval", query, *args, column=column, timeout=timeout)

    async def fetchmany(self, query: str, args: Any, *, timeout: float | None = None) -> list[Record]:
        """Return the rows of a statement executed for each set of arguments."""
        rows: list[Record] = await self._call("fetchmany", query, args, timeout=timeout)
        return rows

    async def copy_to_table(self, table_name: str, **options: Any) -> str:
        """Copy a file or iterable of bytes into a table."""
        return str(await self._call("copy_to_table", table_name, **options))

    async def copy_records_to_table(self, table_name: str, **options: Any) -> str:
        """Copy records into a table."""
        return str(await self._call("copy_records_to_table", table_name, **options))

    async def copy_from_table(self, table_name: str, **options: Any) -> str:
        """Copy a table to a file or function."""
        return str(await self._call("copy_from_table", table_name, **options))

    async def copy_from_query(self, query: str, *args: Any, **options: Any) -> str:
        """Copy the rows of a query to a file or function."""
        return str(await self._call("copy_from_query", query, *args, **options))

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        async with self.acquire() as connection:
            return await getattr(connection, method)(*args, **options)

    def remember(self, connection: Any, context: AcquireContext) -> None:
        """Remember a connection that was taken without `async with`."""
        if self._contexts is None:
            self._contexts = {}
        self._contexts[id(connection)] = context


class AcquireContext:
    """An acquired connection, as a context manager or awaited, like asyncpg's `PoolAcquireContext`."""

    __slots__ = ("_connection", "_owner", "_pool", "_source", "_stop")

    def __init__(self, owner: WorkerPool, source: ConnectionSource, stop: StopSignal) -> None:
        self._owner = owner
        self._source = source
        self._stop = stop
        self._pool: Pool | None = None
        self._connection: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._take().__await__()

    async def _take(self) -> Any:
        connection = await self.__aenter__()
        self._owner.remember(connection, self)
        return connection

    async def __aenter__(self) -> Any:
        if self._pool is not None:
            raise RuntimeError("This connection is already acquired; call acquire() again for another one.")
        self._pool, self._connection = await self._source.acquire(self._stop)
        self._stop.call_started()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end(error)

    async def end(self, error: BaseException | None) -> None:
        """Give the connection back, and report how its use ended."""
        pool, connection, self._pool, self._connection = self._pool, self._connection, None, None
        if pool is None:
            return
        self._source.note_use(error)
        try:
            await self._source.release(pool, connection)
        finally:
            self._stop.call_finished()
