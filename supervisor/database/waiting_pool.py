"""`ctx.db`: asyncpg's pool as one run of a worker sees it, which waits while the database is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.database.error_class import may_be_connection_loss

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from asyncpg import Record

    from supervisor.database.database import Database
    from supervisor.database.pool import Pool
    from supervisor.stop_signal import StopSignal


class WorkerPool:
    """The calls of `asyncpg.Pool`, each of which waits until the database is there.

    A statement that is in flight when the connection is lost raises asyncpg's own error: only the
    worker knows whether it may be repeated. Once the worker is to stop, a call that would have to wait
    for the database raises `DatabaseUnavailable`.
    """

    __slots__ = ("_database", "_lent", "_stop")

    def __init__(self, database: Database, stop: StopSignal) -> None:
        self._database = database
        self._stop = stop
        self._lent: dict[int, AcquireContext] | None = None

    def acquire(self) -> AcquireContext:
        """Borrow a connection: `async with ctx.db.acquire() as connection:`."""
        return AcquireContext(self, self._database, self._stop)

    async def release(self, connection: Any) -> None:
        """Give back a connection taken with `await ctx.db.acquire()`."""
        loan = (self._lent or {}).pop(id(connection), None)
        if loan is not None:
            await loan.end(None)

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

    def lent(self, connection: Any, loan: AcquireContext) -> None:
        """Remember a connection that was taken without `async with`."""
        if self._lent is None:
            self._lent = {}
        self._lent[id(connection)] = loan


class AcquireContext:
    """A connection on loan, as a context manager or awaited, like asyncpg's."""

    __slots__ = ("_connection", "_database", "_owner", "_pool", "_stop")

    def __init__(self, owner: WorkerPool, database: Database, stop: StopSignal) -> None:
        self._owner = owner
        self._database = database
        self._stop = stop
        self._pool: Pool | None = None
        self._connection: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._take().__await__()

    async def _take(self) -> Any:
        connection = await self.__aenter__()
        self._owner.lent(connection, self)
        return connection

    async def __aenter__(self) -> Any:
        if self._pool is not None:
            raise RuntimeError("This connection is already on loan; call acquire() again for another one.")
        self._pool, self._connection = await self._database.acquire(self._stop)
        self._stop.call_started()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end(error)

    async def end(self, error: BaseException | None) -> None:
        """Give the connection back, and tell the gate what its use showed."""
        pool, connection, self._pool, self._connection = self._pool, self._connection, None, None
        if pool is None:
            return
        gate = self._database.monitor
        if error is None:
            gate.has_worked = True
        elif may_be_connection_loss(error):
            gate.request_check()
        try:
            await self._database.release(pool, connection)
        finally:
            self._stop.call_finished()
