"""systemd's watchdog: what it kills, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.unit import Unit

if TYPE_CHECKING:
    from support.postgres import Postgres
    from support.systemd_container import SystemdContainer

pytestmark = pytest.mark.systemd

# No core dump of a process that only did what the test wanted.
_QUICK = "WatchdogSec=2s\nRestartSec=100ms\nLimitCORE=0"
_BLOCKS_ONCE = """
    import time

    async def work(ctx):
        await ctx.db.execute("create table if not exists starts (at timestamptz)")
        await ctx.db.execute("insert into starts values (now())")
        if await ctx.db.fetchval("select count(*) from starts") == 1:
            hold_the_loop()
        while not ctx.stopping:
            await ctx.sleep(3600)

    def hold_the_loop():
        time.sleep(3600)
"""


def test_a_blocked_loop_is_named_then_killed_and_started_again(
    shared_container: SystemdContainer, database: str
) -> None:
    """A blocked event loop is in the journal with its stack before the watchdog ends the daemon, which starts anew."""
    config = '[supervisor]\nstall_warning = "200ms"\n'
    with Unit(shared_container, database, _BLOCKS_ONCE, drop_in=_QUICK) as unit:
        unit.container.write(
            unit.config, unit.container.path(unit.config).read_text().replace("[supervisor]\n", config)
        )
        unit.systemctl("start", "--no-block")
        unit.wait_for("EVENT=daemon.ready", count=2)
        entries = unit.journal()
        blocked = next(place for place, entry in enumerate(entries) if entry.get("EVENT") == "loop.blocked")
        killed = next(place for place, entry in enumerate(entries) if "Watchdog timeout" in entry["MESSAGE"])
        assert blocked < killed
        assert "hold_the_loop" in entries[blocked]["STACK"]
        assert "workers.py" in entries[blocked]["STACK"]
        assert unit.show("NRestarts") == "1"


def test_an_outage_is_no_reason(shared_container: SystemdContainer, postgres: Postgres) -> None:
    """The watchdog is fed over an outage that lasts longer than its patience."""
    with Unit(shared_container, postgres.dsn(), drop_in=_QUICK) as unit:
        unit.start()
        postgres.kill()
        unit.wait_for("EVENT=database.lost")
        began_usec = int(unit.show("WatchdogTimestampMonotonic"))
        while int(unit.show("WatchdogTimestampMonotonic")) < began_usec + 2_000_000:
            assert unit.show("ActiveState") == "active"
        postgres.start()
        unit.wait_for("EVENT=database.recovered")
        assert unit.show("NRestarts") == "0"
