"""What is known of who holds a lease that a node waits for."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import asyncpg
from support.cluster import cluster
from support.gatehouse import HurriedClock, aside, server

from supervisor.leases.fence import begin_fence

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.postgres import Postgres


GRANTS = """
    grant usage on schema supervisor to app;
    grant select on all tables in schema supervisor to app;
    grant execute on all functions in schema supervisor to app;
"""


async def test_a_node_that_waits_says_who_holds_the_lease(database: str) -> None:
    """Scenario 21: a node that waits knows the holder's name, host and process, and says so once when it takes long."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail", name="first")
        await nodes.holder("mail")
        second = await nodes.add("mail", clock=HurriedClock(10.0))
        stand = second.node.stand("mail")
        await nodes.until(lambda: stand.holder is not None and stand.holder.since is not None)
        assert stand.holder is not None
        assert stand.holder.name == f"first@{socket.gethostname()}:{os.getpid()}"
        assert (stand.holder.host, stand.holder.pid) == (socket.gethostname(), os.getpid())
        [[acquired]] = await nodes.query("select acquired_at from supervisor.lease")
        assert stand.holder.since == acquired
        told = await nodes.entries.wait_for("lease.waiting")
        assert told.fields["holder"] == stand.holder.name
        assert told.fields["holder_pid"] == os.getpid()
        assert told.fields["lease"] == "mail"
        await asyncio.sleep(2)  # twenty of its seconds
        assert len(nodes.entries.of("lease.waiting")) == 1
        third = await nodes.add("mail", name="third")
        await first.stop()
        await nodes.until(lambda: second.held or third.held)
        if third.held:
            await nodes.entries.wait_for("lease.waiting", times=2, holder=third.node.identity.name)


async def test_a_lock_that_no_node_holds_is_waited_for(database: str) -> None:
    """A lease whose lock some other session holds is waited for, and status and journal say that it is no node's."""
    async with cluster(database) as nodes:
        node = await nodes.add(clock=HurriedClock(10.0))
        connection = await asyncpg.connect(database)
        lease = await connection.fetchval("select id from supervisor.lease_ids('{mail}')")
        await connection.execute(f"select pg_advisory_lock(1885827842, {lease})")
        node.stand_for(["mail"])
        told = await nodes.entries.wait_for("lease.waiting")
        assert told.fields["holder"] == "a session that is no node's"
        assert not node.held
        await connection.close()
        await nodes.holder("mail")


async def test_a_reload_that_changes_the_database_takes_the_node_along(
    postgres: Postgres, make_postgres: Callable[[], Postgres]
) -> None:
    """When the connection string changes, the leases of the old database are lost and those of the new one taken."""
    other = make_postgres()
    async with cluster(other.dsn()) as there, cluster(postgres.dsn()) as here:
        await there.add("unrelated")  # numbers are given out there already
        node = await here.add("mail", "other")
        await here.until(lambda: len(node.held) == 2)
        gate, old = node.database.new_monitor(server(other.dsn()), node.database.monitor.config), node.database.monitor
        assert await gate.connect_once() is None
        node.occupants["mail"].is_stubborn = True  # it takes a moment to end
        await node.database.switch_to(gate, limit_s=1.0)
        node.tasks.cancel("gate")
        node.tasks.start(gate.run(), name="gate")
        await here.until(lambda: node.occupants["other"].epochs == [1, 1])
        node.occupants["mail"].is_running = False
        node.occupants["mail"].is_stubborn = False
        node.node.stand("mail").worker_ended()
        await here.until(lambda: node.occupants["mail"].epochs == [1, 1])
        rows = await there.query("select name from supervisor.lease where node_id is not null order by name")
        assert [row["name"] for row in rows] == ["mail", "other", "unrelated"]
        assert await node.commit("mail") == 1
        assert old.connected is None
        assert not await aside(postgres.execute, "select 1 from supervisor.held")


async def test_a_role_with_the_three_grants_is_enough(postgres: Postgres) -> None:
    """A daemon that does not own the schema holds leases, hands them over and ends a stuck transaction."""
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


async def test_rows_that_are_made_anew_are_told_apart_by_their_names(database: str) -> None:
    """When every row gets another id under running nodes, each lease is held once and under its own row."""
    async with cluster(database) as nodes:
        one, two = await nodes.add("a", "b", "c"), await nodes.add("a", "b", "c")
        await nodes.until(lambda: len(one.held) + len(two.held) == 3)
        connection = await asyncpg.connect(database)
        await connection.execute("truncate supervisor.lease restart identity")
        await connection.execute("select supervisor.lease_ids('{c}'); select supervisor.lease_ids('{b}')")
        for node in (one, two):
            for lease in sorted(node.held):
                node.node.stand(lease).report_lost("its row is another one")
        rows = "select name from supervisor.lease where node_id is not null order by name"
        async with asyncio.timeout(20):
            while [row["name"] for row in await connection.fetch(rows)] != ["a", "b", "c"]:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.02)
        await nodes.until(lambda: len(one.held) + len(two.held) == 3)
        assert not one.held & two.held
        for node in (one, two):
            for lease in node.held:
                await node.commit(lease)
        await connection.close()


async def test_a_transaction_of_another_role_cannot_be_ended(postgres: Postgres) -> None:
    """A node that may not end what keeps a lease says so, with the remedy, and takes the lease once it has ended."""
    postgres.add_user("app", "pw")
    async with cluster(postgres.dsn()) as nodes:
        postgres.execute(GRANTS)
        former = await nodes.add("mail")
        await nodes.holder("mail")
        connection = await asyncpg.connect(postgres.dsn())
        await connection.execute("begin")
        await begin_fence(connection, former.occupants["mail"].lease, 5.0)
        await former.kill()
        second = await nodes.add("mail", dsn=postgres.dsn(user="app", password="pw"))
        await nodes.until(lambda: second.node.trouble is not None)
        assert "this node may not end it: permission denied" in str(second.node.trouble)
        assert "Let all nodes log in as one role, or GRANT pg_signal_backend" in str(second.node.trouble)
        await connection.close()
        await nodes.until(lambda: second.held)


async def test_a_prepared_transaction_cannot_be_ended(postgres: Postgres) -> None:
    """A node whose lease is kept by a prepared transaction says where to look, and takes the lease once it is over."""
    postgres.set_config("max_prepared_transactions", "5")
    postgres.restart()
    async with cluster(postgres.dsn()) as nodes:
        former = await nodes.add("mail")
        await nodes.holder("mail")
        connection = await asyncpg.connect(postgres.dsn())
        await connection.execute("begin")
        await begin_fence(connection, former.occupants["mail"].lease, 5.0)
        await connection.execute("prepare transaction 'forgotten'")
        await former.kill()
        second = await nodes.add("mail")
        await nodes.until(lambda: second.node.trouble is not None)
        assert "Look at pg_prepared_xacts" in str(second.node.trouble)
        await connection.execute("rollback prepared 'forgotten'")
        await connection.close()
        await nodes.until(lambda: second.held)
