"""The pool: who waits, who dials, what is kept, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import asyncpg
import pytest
from support.clock import FakeClock, settle
from support.database_fixture import FastClock, aside, database_fixture, server, sleeping
from support.proxy import Proxy

from supervisor.database.pool import PoolClosed
from supervisor.journal import current_worker

if TYPE_CHECKING:
    from support.postgres import Postgres


async def test_keeps_pool_min_connections(postgres: Postgres) -> None:
    """They are there before anybody asks, and made anew when one is lost."""
    async with database_fixture(postgres.dsn(), pool_min=3) as house:
        await house.until(lambda: house.count("idle") == 3)
        await aside(postgres.terminate, f"pid <> {house.backend()}")
        await house.until(lambda: house.count("size") < 3)
        await house.until(lambda: house.count("idle") == 3)
        assert house.heard == ["back"]


async def test_has_no_connection_that_nobody_asked_for(database: str) -> None:
    """With pool_min = 0 the monitor's own is the only one until a worker comes."""
    async with database_fixture(database, pool_min=0) as house:
        await settle()
        assert house.count("size") == 0
        assert await house.view().fetchval("select 1") == 1
        assert house.count("size") == 1


async def test_never_has_more_than_pool_max(database: str) -> None:
    """However many ask, and all are served in the order in which they came."""
    async with database_fixture(database, pool_max=3) as house:
        order: list[int] = []

        async def ask(number: int) -> None:
            async with house.view().acquire() as connection:
                order.append(number)
                assert house.count("size") <= 3
                await connection.fetchval("select 1")

        await asyncio.gather(*map(ask, range(50)))
        assert order == sorted(order)
        assert house.database.pool_counts() == {"size": 3, "idle": 3, "max": 3, "waiting": 0, "starved": None}


async def test_who_keeps_every_connection_is_named(database: str) -> None:
    """When nobody gives a connection back and others wait, the worker that has the most is told, once."""
    async with database_fixture(database, clock=FastClock(), pool_min=0, pool_max=2) as house:
        current_worker.set("leaky")
        kept = [await house.view().acquire(), await house.view().acquire()]
        hungry = asyncio.ensure_future(house.view().fetchval("select 1"))
        told = await house.entries.wait_for("pool.exhausted")
        assert "leaky has 2 of them" in str(told.fields["reason"])
        assert house.database.pool_counts()["starved"] == told.fields["reason"]
        kept[0].terminate()
        assert await hungry == 1
        assert house.database.pool_counts()["starved"] is None
        assert len(house.entries.of("pool.exhausted")) == 1


async def test_closes_what_has_been_idle_for_long(database: str) -> None:
    """Connections above pool_min go after five minutes without use, and not before."""
    clock = FakeClock()
    async with database_fixture(database, clock=clock, wait=False, pool_min=1, pool_max=4) as house:
        await house.up()
        async with house.view().acquire() as last, house.view().acquire(), house.view().acquire():
            stays = last.get_server_pid()
        assert house.count("idle") == 3
        for _ in range(4):
            await clock.jump(60.0)
            await asyncio.sleep(0.02)  # a farewell takes real time
        assert house.count("size") == 3
        for _ in range(2):
            await clock.jump(60.0)
        await house.until(lambda: house.count("size") == 1)
        assert await house.view().fetchval("select pg_backend_pid()") == stays


async def test_a_connection_may_be_taken_while_another_is_closed(postgres: Postgres) -> None:
    """What a worker takes while a peer is slow to say farewell is not closed under it, and the pool lives on."""
    clock = FakeClock()
    async with database_fixture(postgres.dsn(), clock=clock, wait=False, pool_min=0, pool_max=2) as house:
        await house.up()
        async with house.view().acquire() as taken, house.view().acquire() as older:
            slow, other = older.get_server_pid(), taken.get_server_pid()
        os.kill(slow, signal.SIGSTOP)
        await clock.jump(310.0)
        async with house.view().acquire() as connection:
            assert connection.get_server_pid() == other
            os.kill(slow, signal.SIGCONT)
            await house.until(lambda: house.count("size") == 1)
            assert await connection.fetchval("select 1") == 1
        assert not house.crashed


async def test_the_most_recently_used_connection_is_taken_first(database: str) -> None:
    """So that the others get old, and go."""
    async with database_fixture(database, pool_min=3) as house:
        await house.until(lambda: house.count("idle") == 3)
        backends = {await house.view().fetchval("select pg_backend_pid()") for _ in range(5)}
        assert len(backends) == 1


async def test_a_connection_comes_back_as_new(database: str) -> None:
    """What a borrower set, listened to, locked or left open is undone, and its object is of no use any more."""
    async with database_fixture(database, pool_max=1) as house:
        db = house.view()
        async with db.acquire() as connection:
            await connection.execute("set search_path to nowhere; listen it; select pg_advisory_lock(7)")
            statement = await connection.prepare("select 1")
        assert await db.fetchval("show search_path") != "nowhere"
        assert await db.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
        with pytest.raises(asyncpg.InterfaceError, match="released"):
            await connection.fetchval("select 1")
        with pytest.raises(asyncpg.InterfaceError, match="released"):
            await statement.fetchval()


async def test_a_changed_schema_is_forgotten_by_every_connection(database: str) -> None:
    """A statement that another connection has cached works on after the table has changed."""
    async with database_fixture(database, pool_min=2) as house:
        db = house.view()
        await db.execute("create table t (a int)")
        await db.execute("insert into t values (1)")
        async with db.acquire() as first, db.acquire() as second:
            for connection in (first, second):
                assert tuple(await connection.fetchrow("select * from t")) == (1,)
            await first.execute("alter table t add b int default 2")
            assert tuple(await first.fetchrow("select * from t")) == (1, 2)
            assert tuple(await second.fetchrow("select * from t")) == (1, 2)


async def test_a_borrower_that_is_cancelled_while_it_waits_leaks_nothing(database: str) -> None:
    """In every turn of the loop: the connection that came too late goes to the next one."""
    async with database_fixture(database, pool_max=1) as house:
        db = house.view()
        for turns in range(40):
            async with db.acquire():
                late = asyncio.ensure_future(db.fetchval("select 1"))
                await settle(3)
            await settle(turns % 8)
            late.cancel()
            await asyncio.wait([late])
            assert await asyncio.wait_for(db.fetchval("select 2"), 10) == 2
        assert house.database.pool_counts() == {"size": 1, "idle": 1, "max": 1, "waiting": 0, "starved": None}


async def test_a_cancelled_statement_gives_its_connection_back(database: str) -> None:
    """The server is told, and the same connection serves the next."""
    async with database_fixture(database, pool_max=1) as house:
        db = house.view()
        backend = await db.fetchval("select pg_backend_pid()")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await db.fetchval("select pg_sleep(60)")
        assert await asyncio.wait_for(db.fetchval("select pg_backend_pid()"), 10) == backend
        assert house.heard == ["back"]


async def test_ten_thousand_waiters_all_go_on(postgres: Postgres) -> None:
    """After an outage each is served, with the dials of one pool and the entries of one outage."""
    async with database_fixture(postgres.dsn()) as house:
        await aside(postgres.stop)
        await house.down()
        db = house.view()

        async def borrow() -> int:
            async with db.acquire():
                return 1

        waiting = [asyncio.ensure_future(borrow()) for _ in range(10_000)]
        await settle()
        before = _connections_made(postgres)
        await aside(postgres.start)
        assert sum(await asyncio.wait_for(asyncio.gather(*waiting), 60)) == 10_000
        assert house.count("size") <= 10
        assert _connections_made(postgres) - before <= 10 + 10  # the pool's, and the monitor's with its checks
        assert house.heard == ["back", "down", "back"]


def _connections_made(postgres: Postgres) -> int:
    return postgres.log.read_text().count("connection received")


async def test_one_attempt_at_a_time_before_a_server_that_takes_no_more(postgres: Postgres) -> None:
    """A thousand who wait for the first connection cause no more dials than one would."""
    postgres.execute("create role app login connection limit 1")
    async with database_fixture(postgres.dsn(user="app", host="socket"), pool_min=0, clock=FastClock()) as house:
        before = _connections_made(postgres)
        waiting = [asyncio.ensure_future(house.view().fetchval("select 1")) for _ in range(1000)]
        await house.until(lambda: house.database._pool is not None and house.database._pool._failed_connects >= 15)
        assert _connections_made(postgres) - before <= 10 + 8
        assert house.database.is_up
        await aside(postgres.execute, "alter role app connection limit 20")
        assert sum(await asyncio.wait_for(asyncio.gather(*waiting), 30)) == 1000
        assert len(house.entries.of("pool.exhausted")) == 1


async def test_who_waits_does_not_wait_for_the_borrowers_of_a_retired_pool(postgres: Postgres) -> None:
    """A worker that sits on its dead connection keeps nobody from the new ones."""
    async with database_fixture(postgres.dsn(), pool_max=1) as house:
        async with house.view().acquire() as held:
            waiting = asyncio.ensure_future(house.view().fetchval("select 1"))
            await settle()
            await aside(postgres.stop, "immediate")
            await house.down()
            await aside(postgres.start)
            assert await asyncio.wait_for(waiting, 30) == 1
            assert held.is_closed()
        assert await house.view().fetchval("select 2") == 2


async def test_that_a_pool_was_retired_is_never_a_workers_business(postgres: Postgres) -> None:
    """Whatever the moment of the loss, a worker sees the driver's error of its own statement, or an answer."""
    async with database_fixture(postgres.dsn(), pool_max=2) as house:
        seen: list[BaseException] = []
        done = False

        async def work() -> None:
            while not done:
                try:
                    assert await house.view().fetchval("select 1") == 1
                except Exception as error:  # noqa: BLE001 - it is what the test looks at
                    seen.append(error)

        workers = [asyncio.ensure_future(work()) for _ in range(20)]
        for mode in ("fast", "immediate", "fast"):
            await aside(postgres.restart, mode)
            await house.up()
        done = True
        await asyncio.wait_for(asyncio.gather(*workers), 20)
        assert not [error for error in seen if isinstance(error, (PoolClosed, AssertionError))]
        assert all(isinstance(error, (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)) for error in seen)


async def test_the_end_waits_for_work_in_flight_and_not_for_ever(postgres: Postgres) -> None:
    """Connections given back within the limit are closed in order; one on loan is ended at the limit."""
    async with database_fixture(postgres.dsn()) as house:
        short = await sleeping(house, postgres, 0.3)
        closing = asyncio.ensure_future(house.database.close(limit_s=20.0))
        assert await short == 1
        await asyncio.wait_for(closing, 30)
    async with database_fixture(postgres.dsn()) as house:
        long = await sleeping(house, postgres)
        await asyncio.wait_for(house.database.close(limit_s=0.1), 10)
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await long


async def test_a_switch_to_another_database_ends_no_statement(postgres: Postgres) -> None:
    """What is in flight finishes on the old one, what comes next goes to the new one, and who waits moves over."""
    await aside(postgres.execute, "create database other")
    async with database_fixture(postgres.dsn(), pool_max=1) as house:
        working = await sleeping(house, postgres, 0.5)
        waiting = asyncio.ensure_future(house.view().fetchval("select current_database()"))
        await settle()
        monitor = house.database.new_monitor(server(postgres.dsn(dbname="other")), house.config)
        assert await monitor.connect_once() is None
        house.tasks.cancel("monitor")
        await house.database.switch_to(monitor, limit_s=10.0)
        house.run()
        assert await asyncio.wait_for(waiting, 30) == "other"
        assert await working == 1
        assert house.heard == ["back"]


async def test_a_switch_ends_an_outage(postgres: Postgres, shared_postgres: Postgres) -> None:
    """Workers that were parked for the old database hear that they may go on."""
    async with database_fixture(postgres.dsn()) as house:
        await aside(postgres.stop)
        await house.down()
        monitor = house.database.new_monitor(server(shared_postgres.dsn()), house.config)
        assert await monitor.connect_once() is None
        house.tasks.cancel("monitor")
        await house.database.switch_to(monitor, limit_s=10.0)
        house.run()
        assert await asyncio.wait_for(house.view().fetchval("select 1"), 10) == 1
        assert house.heard == ["back", "down", "back"]


async def test_a_slow_server_is_not_dialled_twice_for_one_who_waits(shared_postgres: Postgres) -> None:
    """While a dial is under way, it is the one for those who wait."""
    with Proxy(shared_postgres.port) as proxy:
        async with database_fixture(shared_postgres.dsn(port=proxy.port), pool_min=0) as house:
            proxy.slow(latency_s=0.05)
            proxy.reset_attempts()
            waiting = [asyncio.ensure_future(house.view().fetchval("select 1")) for _ in range(3)]
            assert await asyncio.gather(*waiting) == [1, 1, 1]
            assert proxy.attempts <= 2 * 3  # with TLS and without
