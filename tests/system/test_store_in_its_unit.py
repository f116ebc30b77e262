"""The embedded store in the hardened unit: killed servers, killed daemons, and two daemons for one store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.systemd_container import DEADLINE_S
from support.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.systemd_container import SystemdContainer

pytestmark = pytest.mark.systemd

# Rows that were told are committed rows.
_WRITER = """
    import asyncpg

    async def work(ctx):
        await ctx.db.execute("create table if not exists numbers (number serial)")
        while not ctx.stopping:
            try:
                number = await ctx.db.fetchval("insert into numbers default values returning number")
                count = await ctx.db.fetchval("select count(*) from numbers")
                ctx.log.info("written", number=number, rows=count)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                ctx.log.info("lost", error=str(error))
            await ctx.sleep(0.02)
"""
_QUICK = "RestartSec=100ms\nLogRateLimitIntervalSec=0"


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what


def _postgres_processes(container: SystemdContainer) -> list[str]:
    return container.run("pgrep", "-x", "postgres", check=False).stdout.split()


def _writes_on(unit: Unit, event: str, count: int) -> None:
    """Wait for a row written after this entry, and find every row that was told as written before it."""
    since = unit.wait_for(f"EVENT={event}", count=count)["__CURSOR"]
    first = unit.wait_for("--after-cursor", since, "EVENT=written")
    entries = unit.journal("EVENT=written")
    before = entries[: [entry["__CURSOR"] for entry in entries].index(first["__CURSOR"])]
    assert int(first["ROWS"]) > max(int(entry["ROWS"]) for entry in before)


def test_a_killed_server_is_started_again(shared_container: SystemdContainer) -> None:
    """After kill -9 of PostgreSQL the same daemon starts it anew, and the worker goes on with all its rows."""
    with Unit(shared_container, "embedded:", _WRITER, drop_in=_QUICK) as unit:
        unit.start()
        unit.wait_for("EVENT=written", count=5)
        daemon, (server,) = unit.pid, unit.children()
        shared_container.run("kill", "-KILL", str(server))
        unit.wait_for("EVENT=store.started", count=2)
        _writes_on(unit, "database.recovered", count=1)
        assert unit.pid == daemon
        assert unit.children() != [server]
        assert len(unit.journal("EVENT=store.failed")) == 1
        unit.systemctl("stop")
        assert unit.show("Result") == "success"
    assert _postgres_processes(shared_container) == []


def test_a_killed_daemon_takes_its_store_over(shared_container: SystemdContainer) -> None:
    """After kill -9 of the daemon systemd starts it again; it finds its store, and no server of before."""
    with Unit(shared_container, "embedded:", _WRITER, drop_in=_QUICK) as unit:
        unit.start()
        unit.wait_for("EVENT=written", count=5)
        (server,) = unit.children()
        unit.kill("KILL")
        _writes_on(unit, "daemon.ready", count=2)
        assert not shared_container.path(f"/proc/{server}").exists()
        assert unit.show("NRestarts") == "1"
        unit.systemctl("stop")
    assert _postgres_processes(shared_container) == []


# Two units, one user, and a state directory that both are given.
_SHARING = "DynamicUser=yes\nUser=pgsupervisor-twins\nStateDirectory=pgsupervisor/twins\n"
_STORE = "embedded:/var/lib/pgsupervisor/twins/store"


def test_a_second_daemon_waits_for_the_store(shared_container: SystemdContainer) -> None:
    """Of two daemons for one store the second is activating, names the holder in STATUS, and starts when it can."""
    with (
        Unit(shared_container, _STORE, drop_in=_SHARING) as first,
        Unit(shared_container, _STORE, drop_in=_SHARING) as second,
    ):
        first.start()
        holder = first.pid
        second.systemctl("start", "--no-block")
        locked = second.wait_for("EVENT=store.locked")
        assert locked["HOLDER_PID"] == str(holder)
        _wait_until(lambda: f"process {holder} on " in second.show("StatusText"), "STATUS does not name the holder")
        assert "Waiting for the embedded store" in second.show("StatusText")
        assert second.show("ActiveState") == "activating"
        first.systemctl("stop")
        second.wait_for("EVENT=daemon.ready")
        assert second.show("NRestarts") == "0"
        told = shared_container.journal(
            "-u", first.unit, "-u", second.unit, "EVENT=store.stopped", "EVENT=store.unlocked"
        )
        assert [entry["EVENT"] for entry in told] == ["store.stopped", "store.unlocked"]
        assert int(told[1]["__REALTIME_TIMESTAMP"]) - int(told[0]["__REALTIME_TIMESTAMP"]) < 2_000_000
