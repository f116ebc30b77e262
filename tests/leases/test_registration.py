"""A node's row and session: another database, other rows, and few privileges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from support.cluster import cluster
from support.database_fixture import aside, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.postgres import Postgres


async def test_a_reload_that_changes_the_database_takes_the_node_along(
    postgres: Postgres, make_postgres: Callable[[], Postgres]
) -> None:
    """When the connection string changes, the leases of the old database are lost and those of the new one acquired."""
    other = make_postgres()
    async with cluster(other.dsn()) as there, cluster(postgres.dsn()) as here:
        await there.add("unrelated")  # numbers are given out there already
        node = await here.add("mail", "other")
        await here.until(lambda: len(node.held) == 2)
        old = node.database.monitor
        monitor = node.database.new_monitor(server(other.dsn()), old.config)
        assert await monitor.connect_once() is None
        node.occupants["mail"].is_stubborn = True  # it takes a moment to end
        await node.database.switch_to(monitor, limit_s=1.0)
        node.tasks.cancel("monitor")
        node.tasks.start(monitor.run(), name="monitor")
        await here.until(lambda: node.occupants["other"].epochs == [1, 1])
        node.occupants["mail"].is_running = False
        node.occupants["mail"].is_stubborn = False
        node.node.lease("mail").worker_ended()
        await here.until(lambda: node.occupants["mail"].epochs == [1, 1])
        rows = await there.query("select name from supervisor.lease where node_id is not null order by name")
        assert [row["name"] for row in rows] == ["mail", "other", "unrelated"]
        assert await node.commit("mail") == 1
        assert old.connected is None
        assert not await aside(postgres.execute, "select 1 from supervisor.lock_holders")


async def test_a_role_with_the_three_grants_is_enough(postgres: Postgres) -> None:
    """A daemon that does not own the schema holds leases, hands them over and acquires after a loss."""
    async with cluster(postgres.dsn()) as nodes:
        postgres.add_user("app", "secret")
        postgres.execute(
            "grant usage on schema supervisor to app; grant select on all tables in schema supervisor to app; "
            "grant execute on all functions in schema supervisor to app"
        )
        dsn = postgres.dsn(user="app", password="secret")
        first = await nodes.add("mail", dsn=dsn)
        await nodes.holder("mail")
        second = await nodes.add("mail", dsn=dsn)
        assert await first.commit("mail") == 1
        link = first.database.monitor.connected
        assert link is not None
        link.connection.terminate()
        await nodes.until(lambda: len(first.occupants["mail"].epochs + second.occupants["mail"].epochs) == 2)
        await nodes.holders("mail")[0].stop()
        await nodes.until(lambda: nodes.holders("mail"))
        assert not nodes.crashed


async def test_new_rows_are_matched_by_name(database: str) -> None:
    """When every row gets another id under running nodes, each lease is held once and under its own row."""
    async with cluster(database) as nodes:
        one, two = await nodes.add("a", "b", "c"), await nodes.add("a", "b", "c")
        await nodes.until(lambda: len(one.held) + len(two.held) == 3)
        connection = await asyncpg.connect(database)
        await connection.execute("truncate supervisor.lease restart identity")
        await connection.execute("select supervisor.lease_ids('{c}'); select supervisor.lease_ids('{b}')")
        for node in (one, two):
            for lease in sorted(node.held):
                node.node.lease(lease).report_lost("its row is another one")
        rows = "select name from supervisor.lease where node_id is not null order by name"
        async with asyncio.timeout(30):
            while [row["name"] for row in await connection.fetch(rows)] != ["a", "b", "c"]:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.02)
        await nodes.until(lambda: len(one.held) + len(two.held) == 3)
        assert not one.held & two.held
        for node in (one, two):
            for lease in node.held:
                await node.commit(lease)
        await connection.close()
