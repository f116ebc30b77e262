"""The monitor against a real PostgreSQL: connecting, and holding a connection."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest
import uvloop
from support.database_fixture import FastClock, aside, database_fixture, policy, sleeping
from support.fake_server import http_server, refusing_postgres
from support.postgres import free_port
from support.proxy import Proxy

from supervisor.backoff import Backoff
from supervisor.database.error_class import ErrorClass
from supervisor.errors import ConfigError, ConnectAttemptsExhausted, DatabaseAccessDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres


@pytest.fixture
def proxy(shared_postgres: Postgres) -> Iterator[Proxy]:
    """A proxy before the shared server."""
    with Proxy(shared_postgres.port) as proxy:
        yield proxy


def two(first: int, second: int, options: str = "") -> str:
    return f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres{options}"


# The first connection


async def test_connects_at_the_first_attempt(database: str) -> None:
    """One entry for the attempt and one for the connection, and everybody may go on."""
    async with database_fixture(database) as house:
        assert house.entries.events == ["database.connecting", "database.connected"]
        assert house.entries.of("database.connected", attempts=1)
        assert house.heard == ["back"]


async def test_a_server_that_begins_to_listen_is_connected_to_before_the_next_attempt(
    shared_postgres: Postgres, proxy: Proxy
) -> None:
    """The cheap check notices it; the next attempt was an hour away."""
    proxy.refuse()
    slow = policy(backoff=Backoff(initial_s=3600.0, max_s=3600.0, jitter="none"))
    async with database_fixture(shared_postgres.dsn(port=proxy.port), startup=slow, wait=False) as house:
        await house.until(lambda: house.monitor.next_try_at_s is not None)
        proxy.forward()
        await house.up()
        assert house.entries.of("database.connected", attempts=2)


async def test_a_server_that_is_coming_uses_up_no_attempts(postgres: Postgres) -> None:
    """57P03 may be answered more often than there are attempts; the start goes on until the server is there."""
    starting_up = refusing_postgres("57P03", "the database system is starting up")
    with starting_up as fake_server, Proxy(fake_server.port) as proxy:
        dsn = postgres.dsn(port=proxy.port)
        async with database_fixture(dsn, startup=policy(attempts=8), wait=False, probe_interval_s=0.02) as house:
            await house.until(lambda: fake_server.attempts > 12)
            assert not house.database.is_up
            proxy.refuse()
            # The first that counts.
            await house.until(lambda: ErrorClass.NOT_LISTENING in house.monitor.outage.failures)
            proxy.aim(postgres.port)
            proxy.forward()
            await house.up()


async def test_the_start_gives_up_after_its_attempts() -> None:
    """The limit counts attempts at a server that is not there, and the end is said once, with the reason."""
    port = free_port()
    dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    async with database_fixture(dsn, startup=policy(attempts=3), wait=False) as house:
        error = await house.failure(ConnectAttemptsExhausted)
        assert str(error) == f"gave up after 3 attempts: 127.0.0.1:{port} refuses connections"
        (gave_up,) = house.entries.of("database.gave_up")
        assert gave_up.fields["attempts"] == 3


@pytest.mark.parametrize(
    ("user", "dbname", "password", "sqlstate"),
    [
        ("app", "postgres", "wrong", "28P01"),
        ("postgres", "nowhere", None, "3D000"),
        ("app", "closed", "right", "42501"),
    ],
)
async def test_a_refusal_ends_the_start_at_once(
    postgres: Postgres, user: str, dbname: str, password: str | None, sqlstate: str
) -> None:
    """A wrong password, a missing database or privilege is said plainly after one attempt."""
    postgres.add_user("app", "right")
    postgres.execute("create database closed")
    postgres.execute("revoke connect on database closed from public")
    dsn = postgres.dsn(user=user, dbname=dbname, password=password)
    async with database_fixture(dsn, startup=policy(attempts=10, retry_refused=False), wait=False) as house:
        await house.failure(DatabaseAccessDenied)
        (gave_up,) = house.entries.of("database.gave_up")
        assert (gave_up.fields["sqlstate"], house.monitor.outage.attempts) == (sqlstate, 1)
        assert "wrong" not in str(house.entries.all)


async def test_a_refusal_is_tried_again_when_asked_to(postgres: Postgres) -> None:
    """With `retry_refused` the daemon waits for the administrator to create what is missing."""
    async with database_fixture(postgres.dsn(dbname="later"), wait=False) as house:
        await house.until(lambda: house.monitor.outage and house.monitor.outage.attempts >= 2)
        await aside(postgres.execute, "create database later")
        await house.up()


async def test_one_host_that_refuses_is_no_refusal_while_another_is_down(postgres: Postgres) -> None:
    """Of several hosts every one has to refuse: the other may be the right one, and come."""
    postgres.set_hba("host all all 127.0.0.1/32 reject")
    dsn = two(postgres.port, free_port())
    async with database_fixture(dsn, startup=policy(attempts=3, retry_refused=False), wait=False) as house:
        assert "refuses connections" in str(await house.failure(ConnectAttemptsExhausted))


async def test_several_hosts_that_all_refuse_are_a_refusal(postgres: Postgres) -> None:
    """No useless retries when every host says no."""
    dsn = two(postgres.port, postgres.port).removesuffix("/postgres") + "/nowhere"
    async with database_fixture(dsn, startup=policy(attempts=3, retry_refused=False), wait=False) as house:
        assert 'database "nowhere" does not exist' in str(await house.failure(DatabaseAccessDenied))


async def test_a_server_that_is_no_postgresql_is_called_that() -> None:
    """The message names what is wrong, whatever the stranger answers."""
    for option in ("", "?sslmode=require"):
        with http_server() as stranger:
            dsn = f"postgresql://postgres@127.0.0.1:{stranger.port}/postgres{option}"
            async with database_fixture(dsn, startup=policy(attempts=1), connect_timeout_s=1.0, wait=False) as house:
                assert "does not speak PostgreSQL" in str(await house.failure(ConnectAttemptsExhausted)), option


async def test_a_connection_string_that_cannot_work_is_a_fault_of_the_configuration() -> None:
    """What only the driver notices ends the start as any wrong configuration does."""
    dsn = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"
    async with database_fixture(dsn, startup=policy(retry_refused=False), wait=False) as house:
        assert "sslrootcert" in str(await house.failure(ConfigError))


async def test_a_black_hole_ends_by_the_attempts_own_deadline(shared_postgres: Postgres, proxy: Proxy) -> None:
    """Unanswered packets are a time-out after connect_timeout, each time."""
    proxy.black_hole()
    async with database_fixture(
        shared_postgres.dsn(port=proxy.port), startup=policy(attempts=2), connect_timeout_s=0.2, wait=False
    ) as house:
        assert "did not answer within 0.2s" in str(await house.failure(ConnectAttemptsExhausted))


async def test_a_hung_first_host_does_not_delay_the_second(shared_postgres: Postgres, proxy: Proxy) -> None:
    """The second is connected to while the first still hangs."""
    for fault in (proxy.black_hole, proxy.mute):
        fault()
        async with database_fixture(two(proxy.port, shared_postgres.port), connect_timeout_s=3600.0) as house:
            assert house.monitor.connected.endpoint.port == shared_postgres.port
            assert house.entries.of("database.connected", attempts=1)


async def test_the_first_of_two_healthy_hosts_is_preferred(shared_postgres: Postgres, proxy: Proxy) -> None:
    """Hosts are tried in their order."""
    async with database_fixture(two(proxy.port, shared_postgres.port)) as house:
        assert house.monitor.connected.endpoint.port == proxy.port


async def test_the_primary_of_two_hosts_is_found(postgres: Postgres, standby: Postgres) -> None:
    """A standby is passed over where the connection string asks for a primary, and only there."""
    for wanted, port in (("read-write", postgres.port), ("primary", postgres.port), ("standby", standby.port)):
        dsn = two(standby.port, postgres.port, f"?target_session_attrs={wanted}")
        async with database_fixture(dsn) as house:
            assert house.monitor.connected.endpoint.port == port
            assert await house.view().fetchval("select pg_is_in_recovery()") is (wanted == "standby")
    async with database_fixture(two(standby.port, postgres.port, "?target_session_attrs=prefer-standby")) as house:
        assert house.monitor.connected.endpoint.port == standby.port
    await aside(standby.stop)
    async with database_fixture(two(standby.port, postgres.port, "?target_session_attrs=prefer-standby")) as house:
        assert house.monitor.connected.endpoint.port == postgres.port


# Holding it


async def test_only_the_gates_session_ended_is_no_outage(postgres: Postgres) -> None:
    """It is made anew at once; nothing is told, nobody parked, and the workers' statements go on."""
    async with database_fixture(postgres.dsn()) as house:
        working = await sleeping(house, postgres, 0.5)
        before = house.backend()
        await aside(postgres.terminate, f"pid = {before}")
        await house.entries.wait_for("database.reconnected")
        assert house.backend() != before
        assert await working == 1
        assert house.heard == ["back"]
        assert not house.entries.of("database.lost")


async def test_a_connection_for_a_worker_waits_while_the_monitor_renews_its_own(
    shared_postgres: Postgres, proxy: Proxy
) -> None:
    """It neither fails nor spins: the loop goes on turning, and the worker is served once the monitor is."""
    async with database_fixture(shared_postgres.dsn(port=proxy.port), pool_min=0) as house:
        proxy.mute()
        proxy.cut()
        await house.until(lambda: house.monitor.connected is None)
        assert house.database.is_up  # one lost session is no outage yet
        asked = asyncio.ensure_future(house.view().fetchval("select 1"))
        await house.until(lambda: proxy.attempts == 2)
        await asyncio.wait([asked], timeout=0.2)
        assert (asked.done(), proxy.attempts) == (False, 2)
        proxy.forward()
        proxy.cut()
        assert await asyncio.wait_for(asked, 30) == 1


async def test_a_heartbeat_statement_that_fails_once_ends_nothing(postgres: Postgres) -> None:
    """A cancelled heartbeat costs at most the monitor's own session; the next one goes out, and the one after."""
    async with database_fixture(postgres.dsn(), clock=FastClock()) as house:
        await aside(_cancel_a_heartbeat, postgres, house.backend())
        turned_s = house.monitor.last_progress_s
        await house.until(lambda: house.monitor.last_progress_s > turned_s + 12.0)  # two more heartbeats
        assert house.database.is_up
        assert house.heard == ["back"]
        assert await house.view().fetchval("select 1") == 1


def _cancel_a_heartbeat(postgres: Postgres, pid: int) -> None:
    """Stop the backend until a heartbeat's statement has been sent to it, and have it cancelled there."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.4)  # a heartbeat of the hurried clock comes each 0.25 s
    postgres.execute(f"select pg_cancel_backend({pid})")
    os.kill(pid, signal.SIGCONT)


def test_a_blocked_event_loop_is_not_taken_for_a_frozen_server(shared_postgres: Postgres) -> None:
    """When the daemon's own loop stood still beyond the deadline, the answer that lies there counts."""

    async def block() -> None:
        async with database_fixture(shared_postgres.dsn(), connect_timeout_s=0.3) as house:
            before = house.backend()
            asked = asyncio.ensure_future(house.monitor.check_now())
            await house.until(lambda: not house.monitor._checks.is_requested)  # the statement is sent in this turn
            time.sleep(0.6)  # noqa: ASYNC251 - the loop stands still
            assert await asked
            assert house.backend() == before

    # uvloop, as in the daemon: it has an order of its own for what is due when it goes on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(block())


async def test_a_thousand_failing_workers_cause_a_handful_of_checks(database: str) -> None:
    """Suspicions are gathered: about ten statements a second, whoever suspects."""
    async with database_fixture(database, clock=(clock := FastClock(1.0))) as house:
        began_s, checks = clock.now_s(), 0
        while clock.now_s() < began_s + 0.5:
            answers = await asyncio.gather(
                *(house.database.is_outage_error(ConnectionResetError()) for _ in range(1000))
            )
            assert not any(answers)
            checks += 1
        assert checks <= 7


async def test_a_workers_own_errors_are_not_explained(database: str) -> None:
    """Its HTTP call's OSError is checked and found its own; a bug is not even checked."""
    async with database_fixture(database) as house:
        assert not await house.database.is_outage_error(ConnectionRefusedError("some web server"))
        turned_s = house.monitor.last_progress_s
        assert not await house.database.is_outage_error(ValueError())
        assert not await house.database.is_outage_error(asyncpg.TooManyConnectionsError("backpressure"))
        assert house.monitor.last_progress_s == turned_s


async def test_a_workers_session_ended_alone_is_not_an_outage(postgres: Postgres) -> None:
    """The database is there: the worker's error is its own."""
    async with database_fixture(postgres.dsn()) as house:
        working = await sleeping(house, postgres)
        await aside(postgres.terminate, "query like '%pg_sleep%' and state = 'active'")
        with pytest.raises(asyncpg.PostgresError) as caught:
            await working
        assert not await house.database.is_outage_error(caught.value)
        assert house.heard == ["back"]


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
async def test_a_restart_explains_the_statement_in_flight(postgres: Postgres, mode: str) -> None:
    """However the server ends, the worker's error is the outage's, the outage is told once, and work goes on."""
    async with database_fixture(postgres.dsn()) as house:
        working = await sleeping(house, postgres)
        await aside(postgres.kill) if mode == "kill" else await aside(postgres.stop, mode)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever error asyncpg has for it
            await working
        assert await house.database.is_outage_error(caught.value)
        waiting = asyncio.ensure_future(house.view().fetchval("select 1"))
        await house.down()
        await aside(postgres.start)
        assert await asyncio.wait_for(waiting, 30) == 1
        assert house.heard == ["back", "down", "back"]
        assert house.entries.events.count("database.lost") == house.entries.events.count("database.recovered") == 1


async def test_a_server_that_is_back_before_it_is_missed_still_explains(
    shared_postgres: Postgres, proxy: Proxy
) -> None:
    """Every connection was cut at once, and a fresh one succeeds: no outage, and no worker's fault either."""
    async with database_fixture(shared_postgres.dsn(port=proxy.port)) as house:
        working = await sleeping(house, shared_postgres)
        proxy.cut()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as caught:
            await working
        assert await house.database.is_outage_error(caught.value)
        assert house.heard == ["back"]


async def test_read_only_is_no_outage_where_no_primary_is_wanted(postgres: Postgres) -> None:
    """25006 is then the worker's own business."""
    async with database_fixture(postgres.dsn()) as house:
        await aside(postgres.set_read_only)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
            await house.view().execute("create table t ()")
        assert not await house.database.is_outage_error(caught.value)
        assert house.heard == ["back"]
