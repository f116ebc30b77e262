"""Start, failure and stop as systemd sees them, with systemd's own patience made short."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.systemd_container import DEADLINE_S
from support.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.postgres import Postgres
    from support.systemd_container import SystemdContainer

pytestmark = pytest.mark.systemd

_NOBODY_THERE = "postgresql://x@127.0.0.1:1/x"
_HUP = 1


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what


def test_waits_for_a_database_that_comes_late(shared_container: SystemdContainer, postgres: Postgres) -> None:
    """At boot without a database the unit is activating, says why, outlives its start timeout, and becomes active."""
    postgres.stop()
    # The fourth attempt comes after 2.8 s.
    startup = 'startup = { attempts = 0, initial = "400ms", jitter = "none" }\nprobe_interval = "100ms"\n'
    with Unit(shared_container, postgres.dsn(), config=startup, drop_in="TimeoutStartSec=2s") as unit:
        unit.systemctl("start", "--no-block")
        _wait_until(lambda: "attempt 4: " in unit.show("StatusText"), "it does not try")
        assert unit.show("ActiveState") == "activating"
        assert f"127.0.0.1:{postgres.port} refuses connections; next try" in unit.show("StatusText")
        postgres.start()
        unit.wait_for("EVENT=daemon.ready")
        _wait_until(lambda: unit.show("ActiveState") == "active", "it is not active")
        assert unit.show("NRestarts") == "0"


def test_a_wrong_configuration_is_final(shared_container: SystemdContainer) -> None:
    """What ends with 78 is not started again, and `systemctl status` shows the fault."""
    with Unit(shared_container, _NOBODY_THERE, config="pool_mix = 3\n", drop_in="RestartSec=100ms") as unit:
        assert unit.systemctl("start", check=False).returncode != 0
        assert unit.show("SubState") == "failed"
        assert (unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("78", "0")
        assert "database.pool_mix" in unit.show("StatusText")
        assert unit.events() == ["config.invalid"]


def test_a_missing_database_is_tried_again(shared_container: SystemdContainer) -> None:
    """A start that gave up with 69 is made again by systemd, as often as it takes."""
    with Unit(shared_container, _NOBODY_THERE, config="startup.attempts = 1\n", drop_in="RestartSec=100ms") as unit:
        unit.systemctl("start", "--no-block")
        # A sixth start in a row is beyond systemd's usual limit.
        unit.wait_for("EVENT=daemon.starting", count=6)
        assert unit.show("ActiveState") == "activating"
        assert {entry["STATUS"] for entry in unit.journal("EVENT=daemon.stopped")} == {"69"}


def test_a_sighup_during_the_start_is_one_reload_after_it(shared_container: SystemdContainer, database: str) -> None:
    """From the unit's first program on a SIGHUP kills nothing: the start goes on and one reload follows it."""
    with Unit(shared_container, database) as unit:
        for starts in range(1, 4):
            unit.systemctl("start", "--no-block")
            _wait_until(lambda: _holds_back_hup(unit), "nothing blocks SIGHUP")
            unit.kill("HUP")
            unit.wait_for("EVENT=reload.applied", count=starts)
            assert len(unit.journal("EVENT=reload.started")) == starts
            assert (unit.show("ActiveState"), unit.show("NRestarts")) == ("active", "0")
            unit.systemctl("stop")


def _holds_back_hup(unit: Unit) -> bool:
    """Whether SIGHUP is blocked by `env` or handled by the daemon; before that systemd itself is at work."""
    process = unit.container.path(f"/proc/{unit.pid}")
    if not process.exists() or process.joinpath("comm").read_text().startswith("("):
        return False
    lines = process.joinpath("status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk:", "SigCgt:"))]
    return any(mask & _HUP for mask in masks)


def test_a_sighup_before_the_first_program_is_survived(shared_container: SystemdContainer, database: str) -> None:
    """A SIGHUP that meets the process while it is still systemd's own ends it, and systemd starts it again."""
    with Unit(shared_container, database, drop_in="RestartSec=100ms") as unit:
        unit.systemctl("start", "--no-block")
        _wait_until(lambda: unit.pid != 0, "there is no process")
        unit.kill("HUP")
        unit.wait_for("EVENT=daemon.ready")
        _wait_until(lambda: unit.show("ActiveState") == "active", "it is not active")


_DRAINS = """
    import asyncio

    async def work(ctx):
        while not ctx.stopping:
            await ctx.sleep(3600)
        await asyncio.sleep(1.5)
        ctx.log.info("drained")
"""


def test_a_stop_waits_for_work_in_flight(shared_container: SystemdContainer, database: str) -> None:
    """A worker that drains for longer than the unit's stop timeout is waited for, and the stop is a success."""
    with Unit(shared_container, database, _DRAINS, drop_in="TimeoutStopSec=1s") as unit:
        unit.start()
        unit.systemctl("stop")
        assert unit.show("Result") == "success"
        assert unit.events()[-3:] == ["drained", "worker.stopped", "daemon.stopped"]
