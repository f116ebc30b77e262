"""The daemon as a node: whether its loop turns, what the status says of trouble, and joins that fail."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest
from support.clock import FakeClock
from support.gatehouse import aside, gatehouse
from support.inner_daemon import inner_daemon
from support.launching import config

from supervisor.clock import SystemClock
from supervisor.daemon.leasing import Leasing
from supervisor.daemon.pruning import prune_if_asked, prune_no_more
from supervisor.daemon.starting import Start
from supervisor.daemon.status import status_line
from supervisor.database.schema.migrate import ensure_schema
from supervisor.errors import SupervisorError
from supervisor.events.pruning import EVERY_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gatehouse import Gatehouse
    from support.postgres import Postgres

    from supervisor.daemon.daemon import Daemon


@asynccontextmanager
async def housed(tmp_path: Path, dsn: str) -> AsyncIterator[tuple[Daemon, Gatehouse]]:
    """A daemon with a database, and nothing started yet."""
    clock = SystemClock()
    async with gatehouse(dsn, clock=clock) as house:
        with inner_daemon(tmp_path, config(dsn), clock=clock) as daemon:
            daemon.database, daemon.is_ready = house.database, True
            try:
                yield daemon, house
            finally:
                await asyncio.wait(daemon.tasks.cancel_all() or {asyncio.ensure_future(asyncio.sleep(0))})


async def joined(daemon: Daemon, house: Gatehouse) -> Leasing:
    """Make the daemon a node."""
    await ensure_schema(house.database, mode="auto", is_needed=True, clock=daemon.clock, rng=daemon.rng)
    daemon.leasing = leasing = Leasing(daemon, house.database)
    await leasing.begin()
    return leasing


async def test_a_loop_that_does_not_turn_is_unsound(tmp_path: Path, database: str) -> None:
    """The watchdog is fed only while the node looks; that it cannot look in an outage is no reason to be killed."""
    async with housed(tmp_path, database) as (daemon, house):
        leasing = await joined(daemon, house)
        assert daemon.pulse.is_sound()
        now_s = daemon.clock.now_s()
        assert not leasing.is_overdue(now_s + 30.0)
        assert leasing.is_overdue(now_s + 100.0)
        house.gate.close()
        assert not leasing.is_overdue(now_s + 100.0)


async def test_trouble_is_shown(tmp_path: Path, database: str, shared_postgres: Postgres) -> None:
    """A node that cannot do what a node does says so in STATUS, degraded, and is not taken for a loop that stands."""
    async with housed(tmp_path, database) as (daemon, house):
        leasing = await joined(daemon, house)
        name = database.rpartition("/")[2]
        rename = "alter function supervisor.cluster_snapshot rename to glance"
        await aside(lambda: shared_postgres.execute(rename, dbname=name))
        leasing.lease("x").request()
        await house.until(lambda: leasing.node.problem is not None)
        assert "leases: " in status_line(daemon)
        assert not leasing.is_overdue(daemon.clock.now_s() + 100.0)


async def test_a_refused_join_leaves_nothing_behind(tmp_path: Path, database: str, shared_postgres: Postgres) -> None:
    """When joining fails in a reload, the gate's connection serves on as if nobody had tried."""
    async with housed(tmp_path, database) as (daemon, house):
        leasing = Leasing(daemon, house.database)
        with pytest.raises(SupervisorError, match="pgsupervisor migrate"):
            await leasing.try_to_begin()
        assert house.gate.session_owner is None
        assert await house.gate.check_now()
        advisory = f"select count(*) from pg_locks where locktype = 'advisory' and pid = {house.backend()}"
        assert await aside(lambda: shared_postgres.execute(advisory)) == "0"


async def test_a_daemon_without_leases_prunes_too(tmp_path: Path, database: str) -> None:
    """`[events] keep` needs no worker with a lease: the start begins it, or the first reload that asks for it, once."""
    clock = FakeClock()
    async with gatehouse(database) as house:
        await ensure_schema(house.database, mode="auto", is_needed=True, clock=SystemClock(), rng=Random(7))
        await house.view().execute("select supervisor.append('s', 't'), supervisor.reshard('view', 1)")
        await house.view().execute("update supervisor.checkpoint set position = 9")
        with inner_daemon(tmp_path, config(database), clock=clock) as daemon:
            daemon.database = house.database
            prune_if_asked(daemon)
            assert not clock.sleepers
            daemon.config = daemon.config._replace(events=daemon.config.events._replace(keep_s=1e-6))
            await asyncio.gather(Start(daemon)._finish(), clock.jump(0.0))
            gc.unfreeze()
            prune_if_asked(daemon)
            await clock.jump(EVERY_S)
            async with asyncio.timeout(10):
                while await house.view().fetchval("select count(*) from supervisor.event"):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)
            prune_no_more(daemon)
