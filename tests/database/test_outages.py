"""The monitor and its pool through outages of every kind, against real servers and a faulty network."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
from support.database_fixture import FastClock, aside, database_fixture, policy, server, sleeping
from support.proxy import Proxy

from supervisor.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import Postgres

LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
STEADY = policy(backoff=Backoff(initial_s=0.25, factor=2.0, max_s=30.0, jitter="none"))


async def lost(statement: asyncio.Future[object]) -> BaseException:
    """Wait for the end of a statement whose connection is lost, and return its error: the driver's own."""
    done, _ = await asyncio.wait([statement], timeout=15)
    assert done
    error = statement.exception()
    assert isinstance(error, LOST)
    return error


@pytest.fixture
def proxy(shared_postgres: Postgres) -> Iterator[Proxy]:
    """A proxy before the shared server."""
    with Proxy(shared_postgres.port) as proxy:
        yield proxy


# Scenario 9: the dial succeeds, and then it fails


async def test_a_server_that_drops_after_the_handshake_is_asked_at_growing_distances(
    shared_postgres: Postgres, proxy: Proxy
) -> None:
    """The dial succeeds and the first query fails, again and again: no reset, no hot loop, no entry per turn."""
    clock = FastClock()
    dsn = shared_postgres.dsn(port=proxy.port)
    async with database_fixture(dsn, clock=clock, runtime=STEADY, probe_interval_s=1.0) as house:
        proxy.drop_after_handshake()
        proxy.cut()
        await house.down()
        proxy.reset_attempts()
        began_s = clock.now_s()
        await house.until(lambda: house.monitor.outage.failures and sum(house.monitor.outage.failures.values()) >= 7)
        # 0.25 + 0.5 + 1 + 2 + 4 + 5 s: the distances grow to five seconds, and the server that accepts all the while
        # is no reason to come early.
        assert clock.now_s() - began_s >= 12.0
        assert proxy.attempts <= 2 * 7 + 20  # each attempt dials twice, with TLS and without; the rest are checks
        assert house.heard == ["back", "down"]
        assert house.entries.events.count("database.lost") == 1
        assert len(house.entries.of("database.still_down")) <= 1


async def test_a_flapping_server_keeps_the_grown_delays(shared_postgres: Postgres, proxy: Proxy) -> None:
    """Each connection proves itself and dies half a second later: the distances grow, and nothing is told per turn."""
    clock = FastClock(5.0)  # slow enough that a busy machine does not make a second recovery of three
    async with database_fixture(shared_postgres.dsn(port=proxy.port), clock=clock, runtime=STEADY) as house:
        downs: list[float] = []
        for _ in range(7):
            proxy.cut()
            # The first loss renews the monitor's own connection on the spot; from then on it is on probation.
            await house.until(lambda: not house.database.is_up or not downs)
            lost_s = clock.now_s()
            await house.up()
            downs.append(clock.now_s() - lost_s)
            assert await house.view().fetchval("select 1") == 1
            await clock.sleep(0.5)
        assert downs[-1] >= 4.0
        assert downs[-1] >= downs[2] >= downs[1]
        told = [event for event in house.entries.events if event in ("database.lost", "database.recovered")]
        assert told == ["database.lost", "database.recovered"]
        assert [heard for heard in house.heard if not heard.startswith("~")] == ["back", "down", "back"]


async def test_a_flapping_server_that_stays_is_logged_once_more(shared_postgres: Postgres, proxy: Proxy) -> None:
    """After a while with work done the outage is over, which is told with its flaps, and the next one begins afresh."""
    clock = FastClock(5.0)
    async with database_fixture(shared_postgres.dsn(port=proxy.port), clock=clock) as house:
        for _ in range(3):
            proxy.cut()
            await clock.sleep(1.0)
            await house.up()
        assert house.monitor.outage.flaps >= 1
        assert await house.view().fetchval("select 1") == 1
        settled = await house.entries.wait_for("database.recovered", times=2)
        assert settled.fields["flaps"] >= 1
        assert house.heard[-1] == "settled"
        assert house.monitor.outage is None


async def test_time_up_is_not_counted_as_downtime(postgres: Postgres) -> None:
    """An outage soon after a start that had failures is as long as it is, and has its own attempts."""
    await aside(postgres.stop)
    clock = FastClock()
    async with database_fixture(postgres.dsn(), clock=clock, wait=False) as house:
        await house.until(lambda: house.monitor.outage and house.monitor.outage.attempts >= 2)
        await aside(postgres.start)
        await house.up()
        await clock.sleep(5.0)
        lost_s = clock.now_s()
        await aside(postgres.stop)
        await house.down()
        await aside(postgres.start)
        await house.up()
        (recovered,) = house.entries.of("database.recovered")
        assert recovered.fields["downtime_s"] <= clock.now_s() - lost_s


# A peer that froze


@pytest.mark.parametrize("how", ["server", "network"])
async def test_a_frozen_peer_is_noticed(postgres: Postgres, how: str) -> None:
    """No FIN comes and the kernel acknowledges: the heartbeat notices, and a worker's statement ends with it."""
    with Proxy(postgres.port) as proxy:
        dsn = postgres.dsn(port=proxy.port)
        async with database_fixture(dsn, clock=FastClock(), connect_timeout_s=0.3, command_timeout_s=0.0) as house:
            working = await sleeping(house, postgres)
            await aside(postgres.freeze if how == "server" else proxy.freeze)
            error = await lost(working)
            assert await asyncio.wait_for(house.database.is_outage_error(error), 10)  # while it is being found out
            await house.down()
            waiting = asyncio.ensure_future(house.view().fetchval("select 1"))
            await aside(postgres.thaw if how == "server" else proxy.thaw)
            assert await asyncio.wait_for(waiting, 30) == 1
            assert house.heard == ["back", "down", "back"]


async def test_a_frozen_session_costs_every_connection_of_the_pool(shared_postgres: Postgres, proxy: Proxy) -> None:
    """A network that forgot all open connections and takes new ones: no worker waits on a dead one."""
    dsn = shared_postgres.dsn(port=proxy.port)
    async with database_fixture(dsn, clock=FastClock(), connect_timeout_s=0.5, command_timeout_s=0.0) as house:
        working = await sleeping(house, shared_postgres)
        proxy.forget()
        error = await lost(working)
        assert await house.database.is_outage_error(error)
        assert await asyncio.wait_for(house.view().fetchval("select 1"), 15) == 1
        assert house.heard == ["back"]


async def test_an_outage_ends_the_statements_in_flight(postgres: Postgres) -> None:
    """The monitor's session is gone and no other can be made: nothing waits on a former connection."""
    with Proxy(postgres.port) as proxy:
        async with database_fixture(postgres.dsn(port=proxy.port), command_timeout_s=0.0) as house:
            working = await sleeping(house, postgres)
            proxy.refuse()
            await aside(postgres.terminate, f"pid = {house.backend()}")
            await house.down()
            error = await lost(working)
            assert await house.database.is_outage_error(error)


# A primary that is none any more


async def test_a_demoted_primary_is_given_up(postgres: Postgres) -> None:
    """Alive, connected and read-only: where a primary is wanted, that is an outage until it can be written."""
    async with database_fixture(postgres.dsn() + "?target_session_attrs=read-write") as house:
        await aside(postgres.set_read_only)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
            await house.view().execute("create table t ()")
        assert await house.database.is_outage_error(caught.value)
        await house.down()
        assert house.monitor.failure.error_class.value == "read-only"
        await aside(postgres.set_read_only, False)
        await house.up()
        assert await house.view().execute("create table t ()") == "CREATE TABLE"
        assert house.heard == ["back", "down", "back"]


async def test_the_promoted_server_of_two_is_found(postgres: Postgres, standby: Postgres) -> None:
    """Fail-over: the primary dies, the standby is promoted, and a worker's next call writes there."""
    dsn = (
        f"postgresql://postgres@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"
        "?target_session_attrs=read-write"
    )
    async with database_fixture(dsn) as house:
        working = await sleeping(house, postgres)
        await aside(postgres.kill)
        error = await lost(working)
        assert await house.database.is_outage_error(error)
        await house.down()
        writing = asyncio.ensure_future(house.view().execute("create table after_failover ()"))
        await aside(standby.promote)
        assert await asyncio.wait_for(writing, 30) == "CREATE TABLE"
        assert house.monitor.connected.endpoint.port == standby.port


async def test_no_connection_to_the_demoted_primary_is_kept(postgres: Postgres, standby: Postgres) -> None:
    """A switch-over that is done before the monitor checks is no outage, but every pooled connection moves with it."""
    dsn = (
        f"postgresql://postgres@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"
        "?target_session_attrs=read-write"
    )
    async with database_fixture(dsn, pool_min=3) as house:
        await house.until(lambda: house.count("size") == 3)
        await aside(standby.promote)
        await aside(postgres.set_read_only)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
            await house.view().execute("create table t ()")
        assert await house.database.is_outage_error(caught.value)
        tables = [f"create table t{number} ()" for number in range(5)]
        assert await asyncio.gather(*map(house.view().execute, tables)) == ["CREATE TABLE"] * 5
        assert house.monitor.connected.endpoint.port == standby.port
        assert house.heard == ["back"]


async def test_a_fail_over_behind_a_proxy_that_accepts_all_the_while(make_postgres: Callable[[], Postgres]) -> None:
    """Nothing can be watched for there; the grown delays end at five seconds, so that it is found within them."""
    old, new = make_postgres(), make_postgres()
    clock = FastClock()
    with Proxy(old.port) as proxy:
        async with database_fixture(old.dsn(port=proxy.port), clock=clock, runtime=STEADY) as house:
            await aside(old.kill)
            await house.down()
            await clock.sleep(60.0)
            proxy.aim(new.port)
            served_s = clock.now_s()
            await house.up()
            assert clock.now_s() - served_s <= 20.0  # the machine may be busy; a delay of thirty seconds is not this
            assert await house.view().fetchval("select 1") == 1
            assert house.entries.of("database.recovered", flaps=0)


# Crowded, refused, pool and monitor apart


async def test_a_pool_that_workers_exhaust_does_not_hide_the_database(database: str) -> None:
    """Every connection is in use and many wait; the monitor goes on checking on its own, and nothing is parked."""
    async with database_fixture(database, clock=FastClock(), pool_max=2) as house:
        db = house.view()
        async with db.acquire(), db.acquire():
            waiting = [asyncio.ensure_future(db.fetchval("select 1")) for _ in range(20)]
            turned_s = house.monitor.last_progress_s
            await house.until(lambda: house.monitor.last_progress_s > turned_s + 12.0)
            assert house.database.is_up
            assert await house.monitor.check_now()
            assert house.count("waiting") == 20
        assert await asyncio.gather(*waiting) == [1] * 20
        assert house.heard == ["back"]


async def test_too_many_connections_for_the_pool_are_backpressure(postgres: Postgres) -> None:
    """53300 on a pool connection is told once, everybody is served by those that stand, and the dials stay few."""
    postgres.execute("create role app login connection limit 4")
    dsn = postgres.dsn(user="app", host="socket")
    async with database_fixture(dsn) as house:
        connected = _connections_made(postgres)
        db = house.view()
        answers = await asyncio.gather(*(db.fetchval("select 1 from pg_sleep(0.01)") for _ in range(300)))
        assert answers == [1] * 300
        assert house.count("size") == 3
        assert "53300" in str(house.database.pool_counts()["starved"])
        assert len(house.entries.of("pool.exhausted")) == 1
        assert (
            _connections_made(postgres) - connected <= 3 + 7 + 6
        )  # three succeed, seven fail at once, then one at a time
        assert house.heard == ["back"]


def _connections_made(postgres: Postgres) -> int:
    return postgres.log.read_text().count("connection received")


async def test_a_changed_password_exhausts_the_pool_until_a_reload(postgres: Postgres) -> None:
    """What is open still serves, the reason is told, and a reload with the right password feeds the pool."""
    postgres.add_user("app", "old")
    async with database_fixture(postgres.dsn(user="app", password="old"), pool_max=3) as house:
        assert await house.view().fetchval("select 1") == 1
        await aside(postgres.execute, "alter role app password 'new'")
        db = house.view()
        async with db.acquire() as held:
            waiting = asyncio.ensure_future(db.fetchval("select 2"))
            starved = await house.entries.wait_for("pool.exhausted")
            assert starved.fields["error_class"] == "refused"
            assert await held.fetchval("select 3") == 3
            assert house.database.is_up
        assert await waiting == 2  # by the connection that was given back
        async with db.acquire():
            waiting = asyncio.ensure_future(db.fetchval("select 4"))
            await house.until(lambda: house.database.exhausted is not None)
            monitor = house.database.new_monitor(server(postgres.dsn(user="app", password="new")), house.config)
            assert await monitor.connect_once() is None
            house.tasks.cancel("monitor")
            await house.database.switch_to(monitor, limit_s=5.0)
            house.run()
            assert await waiting == 4
        assert house.database.exhausted is None
        assert len(house.entries.of("pool.exhausted")) == 1


async def test_a_full_server_keeps_what_is_open(postgres: Postgres) -> None:
    """When the monitor itself cannot come back for want of a place, the workers' statements are not ended for it."""
    postgres.execute("create role app login connection limit 2")
    async with database_fixture(postgres.dsn(user="app", host="socket"), pool_min=0) as house:
        working = await sleeping(house, postgres, 1.0)
        await aside(postgres.execute, "alter role app connection limit 0")
        await aside(postgres.terminate, f"pid = {house.backend()}")
        lost = await house.entries.wait_for("database.lost")
        assert lost.fields["error_class"] == "crowded"
        assert await working == 1
        await aside(postgres.execute, "alter role app connection limit 2")
        await house.up()


async def test_a_pool_that_cannot_connect_while_the_monitor_is_up_is_logged_in_the_end(
    shared_postgres: Postgres, proxy: Proxy
) -> None:
    """An outage explains failed dials and is told by itself; when there is none, the pool's hunger is."""
    async with database_fixture(shared_postgres.dsn(port=proxy.port), clock=FastClock(), pool_min=0) as house:
        proxy.accept_then_close()
        waiting = asyncio.ensure_future(house.view().fetchval("select 1"))
        starved = await house.entries.wait_for("pool.exhausted")
        assert starved.fields["error_class"] == "dropped"
        assert house.database.is_up
        assert house.database._pool is not None
        assert house.database._pool._failed_connects >= 4
        proxy.forward()
        assert await asyncio.wait_for(waiting, 30) == 1
        assert house.database.exhausted is None
        assert house.heard == ["back"]
