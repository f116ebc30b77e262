"""The daemon as a process through outages: what its workers see, and how little it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import config, status, worker_row
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

# Each run asks the database again and again, and ends with the driver's error when one comes.
ASKING = """
    async def work(ctx):
        while not ctx.stopping:
            await ctx.db.fetchval("select 1")
            await ctx.sleep(0.05)
"""
# The same, writing, and telling which server it has reached.
WRITING = """
    async def work(ctx):
        before = None
        while not ctx.stopping:
            async with ctx.db.acquire() as connection:
                await connection.execute("create table if not exists t ()")
                await connection.execute("insert into t default values")
                port = await connection.fetchval("select current_setting('port')::int")
            if port != before:
                ctx.log.info("wrote", port=port)
            before = port
            await ctx.sleep(0.05)
"""
FIFTY = '[workers.main]\nrun = "workers:work"\nreplicas = 50\n'
STEADY = 'runtime = { initial = "100ms", max = "800ms", jitter = "none" }'


def told(daemon: Daemon, mark: int) -> list[str]:
    """The events since a mark, without what workers said themselves."""
    return [entry["event"] for entry in daemon.entries[mark:] if "event" in entry]


def unharmed(daemon: Daemon) -> bool:
    """Whether no run of the worker counted as a failure or a restart."""
    row = worker_row(daemon)
    return (row["restarts"], row["failures"]) == (0, 0)


def test_an_outage_under_fifty_workers_is_four_entries(launch: Launcher, postgres: Postgres) -> None:
    """Lost, parked, back, going on; no failure, no restart, and the status says what is the matter."""
    daemon = launch.ready(config(postgres.dsn(), workers=FIFTY), ASKING)
    mark = daemon.mark
    postgres.stop("immediate")
    daemon.wait_for("workers.parked", after=mark, instances=50)
    away = status(daemon)
    assert (away["state"], away["database"]["state"]) == ("database-down", "down")
    assert "The database is unreachable" in away["status"]
    time.sleep(1.0)
    postgres.start()
    daemon.wait_for("workers.resumed", after=mark, instances=50)
    _all_run(daemon)
    assert told(daemon, mark) == ["database.lost", "workers.parked", "database.recovered", "workers.resumed"]
    assert unharmed(daemon)
    assert status(daemon)["state"] == "running"
    assert daemon.stop() == 0


def _all_run(daemon: Daemon) -> None:
    deadline = time.monotonic() + 20
    while worker_row(daemon)["state"] != "running":
        assert time.monotonic() < deadline, worker_row(daemon)
        time.sleep(0.05)


def test_a_flapping_server_is_logged_once(launch: Launcher, shared_postgres: Postgres) -> None:
    """Each connection dies soon after it was made: the entries are those of one outage, and no worker is harmed."""
    with Proxy(shared_postgres.port) as proxy:
        dsn = shared_postgres.dsn(port=proxy.port)
        daemon = launch.ready(config(dsn, database=STEADY), ASKING)
        mark = daemon.mark
        for _ in range(12):
            proxy.cut()
            time.sleep(0.2)
        proxy.drop_after_handshake()
        proxy.cut()
        time.sleep(1.0)
        proxy.forward()
        _wait_up(daemon)
        events = told(daemon, mark)
        assert events.count("database.lost") == events.count("database.recovered") == 1
        assert len(events) <= 6
        assert unharmed(daemon)
        assert daemon.stop() == 0


def _wait_up(daemon: Daemon) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (now := status(daemon))["database"]["state"] != "up":
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


@pytest.mark.parametrize("way", ["two hosts", "a proxy"])
def test_a_fail_over_moves_every_worker(launch: Launcher, postgres: Postgres, standby: Postgres, way: str) -> None:
    """The primary dies, the standby is promoted: the workers go on there, and none was restarted."""
    with Proxy(postgres.port) as proxy:
        hosts = (
            f"127.0.0.1:{postgres.port},127.0.0.1:{standby.port}" if way == "two hosts" else f"127.0.0.1:{proxy.port}"
        )
        dsn = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        daemon = launch.ready(config(dsn), WRITING)
        daemon.wait_for("wrote", port=postgres.port)
        mark = daemon.mark
        postgres.kill()
        daemon.wait_for("database.lost", after=mark)
        time.sleep(1.0)
        standby.promote()
        proxy.aim(standby.port)
        daemon.wait_for("wrote", after=mark, port=standby.port, limit_s=30)
        assert unharmed(daemon)
        assert told(daemon, mark).count("database.lost") == 1
        assert daemon.stop() == 0


def test_a_demoted_primary_is_left_for_the_new_one(launch: Launcher, make_postgres: Callable[[], Postgres]) -> None:
    """It stays connected and read-only; the workers' writes go on at the other host, and nobody is restarted."""
    old, new = make_postgres(), make_postgres()
    new.set_read_only()
    dsn = f"postgresql://postgres@127.0.0.1:{old.port},127.0.0.1:{new.port}/postgres?target_session_attrs=read-write"
    daemon = launch.ready(config(dsn), WRITING)
    daemon.wait_for("wrote", port=old.port)
    mark = daemon.mark
    old.set_read_only()
    daemon.wait_for("database.lost", after=mark, error_class="read-only")
    new.set_read_only(False)
    daemon.wait_for("wrote", after=mark, port=new.port)
    _all_run(daemon)
    assert unharmed(daemon)
    assert daemon.stop() == 0


def test_an_exhausted_pool_hides_nothing(launch: Launcher, shared_postgres: Postgres) -> None:
    """Workers hold every connection: the connection monitor is up, and the control socket answers how many wait."""
    holding = """
        async def work(ctx):
            async with ctx.db.acquire():
                while not ctx.stopping:
                    await ctx.sleep(3600)
    """
    daemon = launch.ready(config(shared_postgres.dsn(), database="pool_max = 2", workers=FIFTY), holding)
    deadline = time.monotonic() + 20
    while (pool := status(daemon)["database"]["pool"])["waiting"] != 48:
        assert time.monotonic() < deadline, pool
        time.sleep(0.05)
    now = status(daemon)
    assert (now["state"], now["database"]["state"], now["database"]["pool"]["idle"]) == ("running", "up", 0)
    assert daemon.stop() == 0


def test_a_starving_pool_is_not_called_healthy(launch: Launcher, postgres: Postgres) -> None:
    """The server takes no further connection of ours: told once, shown in the status, and over when it is over."""
    postgres.execute("create role app login connection limit 2")
    dsn = postgres.dsn(user="app", host="socket")
    sleeping = """
        async def work(ctx):
            while not ctx.stopping:
                await ctx.db.fetchval("select pg_sleep(0.2)")
    """
    daemon = launch.ready(config(dsn, database="pool_max = 5", workers=FIFTY), sleeping)
    daemon.wait_for("pool.exhausted", error_class="crowded")
    starving = status(daemon)
    assert starving["state"] == "degraded"
    assert "has no connection left to give" in starving["status"]
    assert starving["database"]["state"] == "up"
    assert unharmed(daemon)
    postgres.execute("alter role app connection limit 20")
    deadline = time.monotonic() + 20
    while status(daemon)["state"] != "running":
        assert time.monotonic() < deadline, status(daemon)
        time.sleep(0.05)
    assert len(daemon.said("pool.exhausted")) == 1
    assert daemon.stop() == 0
