"""`ctx.db`: asyncpg's pool as a worker sees it."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import asyncpg
import pytest
from support.clock import settle
from support.database_fixture import aside, database_fixture
from support.proxy import Proxy

from supervisor.errors import DatabaseUnavailable
from supervisor.stop_signal import StopSignal

if TYPE_CHECKING:
    from support.postgres import Postgres


async def test_every_call_of_a_pool_works(database: str) -> None:
    """The calls that asyncpg's pool has, with its arguments and results."""
    async with database_fixture(database) as house:
        db = house.view()
        assert await db.execute("create table t (a int, b text)") == "CREATE TABLE"
        await db.executemany("insert into t values ($1, $2)", [(1, "x"), (2, "y")])
        assert [tuple(row) for row in await db.fetch("select * from t order by a")] == [(1, "x"), (2, "y")]
        row = await db.fetchrow("select * from t where a = $1", 2)
        assert row is not None
        assert row["b"] == "y"
        assert await db.fetchrow("select 1 where false") is None
        assert await db.fetchval("select a, b from t order by a", column=1) == "x"
        rows = await db.fetchmany("insert into t values ($1, $2) returning a", [(3, "z"), (4, "w")])
        assert [row["a"] for row in rows] == [3, 4]


async def test_every_copy_of_a_pool_works(database: str) -> None:
    """Records and bytes in, table and query out."""
    async with database_fixture(database) as house:
        db, out = house.view(), io.BytesIO()
        await db.execute("create table t (a int)")
        assert await db.copy_records_to_table("t", records=[(1,), (2,)]) == "COPY 2"
        assert await db.copy_to_table("t", source=io.BytesIO(b"3\n4\n")) == "COPY 2"
        assert await db.copy_from_table("t", output=out) == "COPY 4"
        assert await db.copy_from_query("select a from t where a > $1", 3, output=out) == "COPY 1"
        assert out.getvalue() == b"1\n2\n3\n4\n4\n"


async def test_a_connection_acquired_by_either_way(database: str) -> None:
    """`async with` and `await` with `release` lend a connection each, and take it back."""
    async with database_fixture(database, pool_max=1) as house:
        db = house.view()
        async with db.acquire() as connection, connection.transaction():
            assert await connection.fetchval("select 1") == 1
        connection = await db.acquire()
        assert await connection.fetchval("select 2") == 2
        await db.release(connection)
        await db.release(connection)  # once more does nothing, as in asyncpg's
        assert house.database.pool_counts()["idle"] == 1


async def test_a_failed_transaction_is_rolled_back(database: str) -> None:
    """The connection is as good as new afterwards, and nothing was written."""
    async with database_fixture(database, pool_max=1) as house:
        db = house.view()
        await db.execute("create table t (a int primary key)")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with db.acquire() as connection, connection.transaction():
                await connection.executemany("insert into t values ($1)", [(1,), (1,)])
        assert await db.fetchval("select count(*) from t") == 0
        assert house.heard == ["back"]


async def test_a_call_waits_for_the_database(postgres: Postgres) -> None:
    """As long as it takes; and the worker bounds it as any other wait."""
    async with database_fixture(postgres.dsn()) as house:
        await aside(postgres.stop)
        await house.down()
        waiting = asyncio.ensure_future(house.view().fetchval("select 1"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await house.view().fetchval("select 1")
        assert not waiting.done()
        await aside(postgres.start)
        assert await asyncio.wait_for(waiting, 30) == 1


async def test_a_worker_that_is_to_stop_does_not_wait_for_the_database(postgres: Postgres) -> None:
    """Neither the call that waits already nor the next one; and the error is the outage's doing."""
    async with database_fixture(postgres.dsn()) as house:
        await aside(postgres.stop)
        await house.down()
        stop = StopSignal()
        waiting = asyncio.ensure_future(house.view(stop).fetchval("select 1"))
        await settle()
        stop.set()
        with pytest.raises(DatabaseUnavailable) as caught:
            await asyncio.wait_for(waiting, 30)
        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(house.view(stop).fetchval("select 1"), 5)
        assert await house.database.is_outage_error(caught.value)


async def test_a_worker_that_is_to_stop_does_not_wait_for_a_pool_without_connections(postgres: Postgres) -> None:
    """Where the server takes no further connection, that is waiting for the database too."""
    postgres.execute("create role app login connection limit 1")
    async with database_fixture(postgres.dsn(user="app", host="socket"), pool_min=0) as house:
        stop = StopSignal()
        waiting = asyncio.ensure_future(house.view(stop).fetchval("select 1"))
        await house.entries.wait_for("pool.exhausted")
        assert not waiting.done()
        stop.set()
        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(waiting, 30)


async def test_a_worker_that_is_to_stop_may_finish_its_work(database: str) -> None:
    """While the database is there, a stop takes nothing away from it; what it waits for is counted."""
    async with database_fixture(database, pool_max=1) as house:
        stop = StopSignal()
        db = house.view(stop)
        async with db.acquire() as connection:
            stop.set()
            assert stop.in_flight == 1
            assert await connection.fetchval("select 1") == 1
        assert stop.in_flight == 0
        assert await db.fetchval("select 2") == 2


async def test_a_thousand_stops_leave_nothing_behind(postgres: Postgres) -> None:
    """Workers that come and go while the database is away are forgotten."""
    async with database_fixture(postgres.dsn()) as house:
        await aside(postgres.stop)
        await house.down()
        stop = StopSignal()
        for _ in range(1000):
            waiting = asyncio.ensure_future(house.view(stop).fetchval("select 1"))
            await settle(1)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert not house.database._waiting
        assert not stop._notices


async def test_the_statement_in_flight_shows_the_drivers_own_error(shared_postgres: Postgres) -> None:
    """Only the worker knows whether it may be repeated, so it is neither repeated nor disguised."""
    with Proxy(shared_postgres.port) as proxy:
        async with (
            database_fixture(shared_postgres.dsn(port=proxy.port)) as house,
            house.view().acquire() as connection,
        ):
            working = asyncio.ensure_future(connection.fetchval("select pg_sleep(60)"))
            await settle()
            proxy.cut()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await working
