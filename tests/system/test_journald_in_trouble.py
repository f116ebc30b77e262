"""journald restarted, frozen, without room, or out of reach: the daemon works on and says what was lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.pace import process_slack_s
from support.systemd_container import DEADLINE_S
from support.unit import COMMAND, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.postgres import Postgres
    from support.systemd_container import SystemdContainer

pytestmark = pytest.mark.systemd

# Says numbers, one by one or as a flood, and what stands in a file; counts its turns where only the database sees them.
_COUNTER = """
    from pathlib import Path

    FLOOD = Path(__file__).with_name("flood")
    SAY = Path(__file__).with_name("say")

    async def work(ctx):
        await ctx.db.execute("drop table if exists turns; create table turns as select 0 as count")
        number, said = 0, ""
        while not ctx.stopping:
            await ctx.db.execute("update turns set count = count + 1")
            for _ in range(100 if FLOOD.exists() else 1):
                ctx.log.info("turn", number=number)
                number += 1
            if SAY.exists() and said != (said := SAY.read_text()):
                ctx.log.warning(said)
            await ctx.sleep(0.005)
"""
# journald's own limit would hide what the daemon does.
_QUICK_WATCH = "WatchdogSec=2s\nLogRateLimitIntervalSec=0"


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


def _turns(postgres: Postgres) -> int:
    return int(postgres.execute("select count from turns"))


def _goes_on(postgres: Postgres, turns: int = 5) -> None:
    """Wait until the worker has made so many more turns."""
    first = _turns(postgres)
    _wait_until(lambda: _turns(postgres) >= first + turns, "the worker stands still")


def _heard(unit: Unit, text: str) -> None:
    """Have the worker say something, and wait until journald has it."""
    unit.container.write(f"{unit.folder}/say", text)
    unit.wait_for(f"EVENT={text}")


def _numbers(unit: Unit) -> list[int]:
    return [int(entry["NUMBER"]) for entry in unit.journal("EVENT=turn")]


def _assert_every_loss_is_logged(unit: Unit) -> int:
    """Compare the numbers that did not arrive with what the daemon says it lost, and return how many."""
    heard = _numbers(unit)
    lost = max(heard) + 1 - len(set(heard))
    assert len(set(heard)) == len(heard)
    told = sum(int(entry["COUNT"]) for entry in unit.journal("EVENT=log.dropped"))
    assert told == lost
    return lost


def test_journald_is_restarted(container: SystemdContainer, postgres: Postgres) -> None:
    """Over a restart of journald the worker goes on, later entries arrive, and no loss is kept quiet."""
    with Unit(container, postgres.dsn(), _COUNTER, drop_in=_QUICK_WATCH) as unit:
        unit.start()
        unit.wait_for("EVENT=turn", "NUMBER=20")
        for time_of_restart in ("first", "second"):
            container.run("systemctl", "restart", "systemd-journald")
            _heard(unit, f"after the {time_of_restart} restart")
        _assert_every_loss_is_logged(unit)
        assert unit.show("NRestarts") == "0"


def test_journald_is_killed(container: SystemdContainer, postgres: Postgres) -> None:
    """The same when journald crashes."""
    with Unit(container, postgres.dsn(), _COUNTER, drop_in=_QUICK_WATCH) as unit:
        unit.start()
        unit.wait_for("EVENT=turn", "NUMBER=20")
        container.run("systemctl", "kill", "-s", "KILL", "systemd-journald")
        _goes_on(postgres)
        _heard(unit, "after the crash")
        assert unit.show("NRestarts") == "0"


def test_journald_is_frozen(container: SystemdContainer, postgres: Postgres) -> None:
    """While journald takes nothing the worker goes on, watchdog and status too; then the losses are told in full."""
    with Unit(container, postgres.dsn(), _COUNTER, drop_in=_QUICK_WATCH) as unit:
        unit.start()
        unit.wait_for("EVENT=turn", "NUMBER=20")
        container.run("systemctl", "kill", "-s", "STOP", "systemd-journald")
        try:
            fed = int(unit.show("WatchdogTimestampMonotonic"))
            unit.container.write(f"{unit.folder}/flood", "")
            _goes_on(postgres, turns=100)
            _wait_until(lambda: unit.status()["journal"]["dropped"] > 0, "the queue is endless")
            container.path(f"{unit.folder}/flood").unlink()
            _wait_until(lambda: int(unit.show("WatchdogTimestampMonotonic")) > fed + 1.5e6, "the watchdog starves")
            _goes_on(postgres)
        finally:
            container.run("systemctl", "kill", "-s", "CONT", "systemd-journald")
        unit.wait_for("EVENT=log.dropped")
        _heard(unit, "after the thaw")
        assert _assert_every_loss_is_logged(unit) > 0
        assert unit.status()["workers"][0]["state"] == "running"
        assert unit.show("NRestarts") == "0"


def test_the_stop_does_not_wait_for_a_frozen_journald(container: SystemdContainer, database: str) -> None:
    """A stop ends in order and in time although nobody takes its last words."""
    with Unit(container, database, _COUNTER) as unit:
        unit.container.write(f"{unit.folder}/flood", "")
        unit.start()
        container.run("systemctl", "kill", "-s", "STOP", "systemd-journald")
        try:
            _wait_until(lambda: unit.status()["journal"]["dropped"] > 0, "the queue is endless")
            began_s = time.monotonic()
            unit.systemctl("stop")
            assert time.monotonic() - began_s < 15 + process_slack_s()
            assert unit.show("Result") == "success"
        finally:
            container.run("systemctl", "kill", "-s", "CONT", "systemd-journald")


def test_the_journals_disk_is_full(container: SystemdContainer, postgres: Postgres) -> None:
    """While journald has no room the worker goes on, and what is said once there is room is kept."""
    container.run("mkdir", "/var/log/journal")
    container.run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", "/var/log/journal")
    container.run("journalctl", "--flush")
    with Unit(container, postgres.dsn(), _COUNTER, drop_in=_QUICK_WATCH) as unit:
        unit.start()
        unit.wait_for("EVENT=turn", "NUMBER=20")
        container.run("sh", "-c", "cat /dev/zero > /var/log/journal/filler", check=False)
        assert container.run("df", "--output=avail", "/var/log/journal").stdout.split()[-1] == "0"
        container.write(f"{unit.folder}/flood", "")
        _goes_on(postgres, turns=80)
        container.path(f"{unit.folder}/flood").unlink()
        container.path("/var/log/journal/filler").unlink()
        _goes_on(postgres)
        _heard(unit, "with room again")
        assert unit.status()["workers"][0]["state"] == "running"
        assert unit.show("NRestarts") == "0"


def test_a_closed_stderr_is_no_hindrance(container: SystemdContainer, database: str) -> None:
    """A daemon that is started with stderr closed talks to journald, and never into a descriptor of another kind."""
    command = f"exec /usr/bin/env --block-signal=HUP {COMMAND} run -c /etc/pgsupervisor/%i.toml 0<&- 2>&-"
    with Unit(container, database, drop_in=f"ExecStart=\nExecStart=/bin/sh -c '{command}'") as unit:
        unit.start()
        descriptors = {number: str(container.path(f"/proc/{unit.pid}/fd/{number}").readlink()) for number in range(3)}
        assert descriptors[0] == descriptors[2] == "/dev/null"
        unit.systemctl("stop")
        events = unit.events()
        assert (events[0], events[-1]) == ("daemon.starting", "daemon.stopped")
