"""The daemon as a node: whether its loop makes progress, what the status says of a problem, and joins that fail."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest
from support.clock import FakeClock
from support.database_fixture import aside, database_fixture
from support.inner_daemon import inner_daemon
from support.launching import config

from supervisor.clock import SystemClock
from supervisor.daemon.components.pruning import PruningComponent
from supervisor.database.schema.migrate import ensure_schema
from supervisor.errors import SupervisorError
from supervisor.events.pruning import EVERY_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.database_fixture import DatabaseFixture
    from support.postgres import Postgres

    from supervisor.config.model import Config
    from supervisor.daemon.daemon import Daemon
    from supervisor.leases.node import Node

SINGLETON = '[workers.main]\nrun = "workers:work"\nsingleton = true\n'


@asynccontextmanager
async def housed(tmp_path: Path, dsn: str) -> AsyncIterator[tuple[Daemon, DatabaseFixture]]:
    """A daemon with a database, and nothing started yet."""
    clock = SystemClock()
    async with database_fixture(dsn, clock=clock) as house:
        with inner_daemon(tmp_path, config(dsn, workers=SINGLETON), clock=clock) as daemon:
            daemon.database._database, daemon.state.is_ready = house.database, True
            try:
                yield daemon, house
            finally:
                await asyncio.wait(daemon.tasks.cancel_all() or {asyncio.ensure_future(asyncio.sleep(0))})


async def joined(daemon: Daemon, house: DatabaseFixture) -> Node:
    """Make the daemon a node."""
    await ensure_schema(house.database, mode=lambda: "auto", is_needed=lambda: True, clock=SystemClock(), rng=Random(7))
    await daemon.node.start()
    assert daemon.node.membership is not None
    return daemon.node.membership.node


async def test_a_stuck_loop_is_unhealthy(tmp_path: Path, database: str) -> None:
    """The watchdog is fed only while the node looks; that it cannot look in an outage is no reason to be killed."""
    async with housed(tmp_path, database) as (daemon, house):
        node = await joined(daemon, house)
        assert daemon.unhealthy() == []
        now_s = daemon._clock.now_s()
        assert not node.is_stuck(now_s + 30.0)
        assert node.is_stuck(now_s + 100.0)
        assert not daemon.node.is_healthy(now_s + 100.0)
        house.monitor.close()
        assert not node.is_stuck(now_s + 100.0)


async def test_a_problem_is_shown(tmp_path: Path, database: str, shared_postgres: Postgres) -> None:
    """A node that cannot do what a node does says so in STATUS, degraded, and is not taken for a loop that is stuck."""
    async with housed(tmp_path, database) as (daemon, house):
        node = await joined(daemon, house)
        name = database.rpartition("/")[2]
        rename = "alter function supervisor.cluster_snapshot rename to glance"
        await aside(lambda: shared_postgres.execute(rename, dbname=name))
        node.lease("x").request()
        await house.until(lambda: node.problem is not None)
        assert "leases: " in daemon.status.line()
        assert daemon.status.condition().value == "degraded"
        assert not node.is_stuck(daemon._clock.now_s() + 100.0)


async def test_a_refused_join_leaves_nothing_behind(tmp_path: Path, database: str, shared_postgres: Postgres) -> None:
    """When joining fails in a reload, the monitor's connection is used as before."""
    async with housed(tmp_path, database) as (daemon, house):
        daemon.node._has_started = True
        new = daemon.state.config
        with pytest.raises(SupervisorError, match="pgsupervisor migrate"):
            await daemon.node.validate(new._replace(workers={}), new)
        assert daemon.node.membership is None
        assert house.monitor.session_owner is None
        assert await house.monitor.check_now()
        assert await _advisory_locks(shared_postgres, house) == "0"


async def test_a_discarded_join_leaves_nothing_behind(tmp_path: Path, database: str, shared_postgres: Postgres) -> None:
    """When another component refuses the reload, the node that has joined for it leaves again, its tasks with it."""
    async with housed(tmp_path, database) as (daemon, house):
        await ensure_schema(
            house.database, mode=lambda: "auto", is_needed=lambda: True, clock=SystemClock(), rng=Random(7)
        )
        daemon.node._has_started = True
        new = daemon.state.config
        prepared = await daemon.node.validate(new._replace(workers={}), new)
        assert house.monitor.session_owner is not None
        assert await _advisory_locks(shared_postgres, house) != "0"
        await prepared.discard()
        assert daemon.node.membership is None
        assert house.monitor.session_owner is None
        await house.until(lambda: not {task.get_name() for task in asyncio.all_tasks()} & {"leases", "leases: trust"})
        assert await _advisory_locks(shared_postgres, house) == "0"


async def _advisory_locks(server: Postgres, house: DatabaseFixture) -> str:
    count = f"select count(*) from pg_locks where locktype = 'advisory' and pid = {house.backend()}"
    found: str = await aside(lambda: server.execute(count))
    return found


async def test_a_daemon_without_leases_prunes_too(tmp_path: Path, database: str) -> None:
    """`[events] keep` needs no worker with a lease: the start begins it, or the first reload that asks for it, once."""
    clock = FakeClock()
    async with database_fixture(database) as house:
        await ensure_schema(
            house.database, mode=lambda: "auto", is_needed=lambda: True, clock=SystemClock(), rng=Random(7)
        )
        await house.view().execute("select supervisor.append('s', 't'), supervisor.reshard('view', 1)")
        await house.view().execute("update supervisor.checkpoint set position = 9")
        with inner_daemon(tmp_path, config(database), clock=clock) as daemon:
            old = daemon.state.config
            new = old._replace(events=old.events._replace(keep_s=1e-6))

            def component(with_config: Config) -> PruningComponent:
                return PruningComponent(with_config, database=lambda: house.database, clock=clock, tasks=daemon.tasks)

            pruning = component(old)
            await pruning.start()
            assert not clock.sleepers
            await (await pruning.validate(old, new)).apply()
            await clock.jump(0.0)
            assert len(clock.sleepers) == 1
            await (await pruning.validate(new, new)).apply()
            await pruning.stop(0.0)
            await clock.jump(0.0)
            assert not clock.sleepers
            pruning = component(new)
            await pruning.start()
            await clock.jump(EVERY_S)
            async with asyncio.timeout(30):
                while await house.view().fetchval("select count(*) from supervisor.event"):  # noqa: ASYNC110 - no notification
                    await asyncio.sleep(0.005)
            await pruning.stop(0.0)
