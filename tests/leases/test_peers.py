"""What a node knows of the holder of a lease that it waits for."""

from __future__ import annotations

import asyncio
import os
import socket

import asyncpg
from support.cluster import cluster
from support.database_fixture import FastClock


async def test_a_node_that_waits_knows_the_holder(database: str) -> None:
    """Scenario 21: a node that waits knows the holder's name, host and process, and logs them once after a while."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail", name="first")
        await nodes.holder("mail")
        second = await nodes.add("mail", clock=FastClock(10.0))
        lease = second.node.lease("mail")
        await nodes.until(lambda: lease.holder is not None and lease.holder.since is not None)
        assert lease.holder is not None
        assert lease.holder.name == f"first@{socket.gethostname()}:{os.getpid()}"
        assert (lease.holder.host, lease.holder.pid) == (socket.gethostname(), os.getpid())
        [[acquired]] = await nodes.query("select acquired_at from supervisor.lease")
        assert lease.holder.since == acquired
        told = await nodes.entries.wait_for("lease.waiting")
        assert told.fields["holder"] == lease.holder.name
        assert told.fields["holder_pid"] == os.getpid()
        assert told.fields["lease"] == "mail"
        await asyncio.sleep(2)  # twenty of its seconds
        assert len(nodes.entries.of("lease.waiting")) == 1
        third = await nodes.add("mail", name="third")
        await first.stop()
        await nodes.until(lambda: second.held or third.held)
        if third.held:
            await nodes.entries.wait_for("lease.waiting", times=2, holder=third.node.identity.name)


async def test_a_lock_of_a_session_that_is_no_nodes_is_waited_for(database: str) -> None:
    """A lease whose lock some other session holds is waited for, and status and journal say that it is no node's."""
    async with cluster(database) as nodes:
        node = await nodes.add(clock=FastClock(10.0))
        connection = await asyncpg.connect(database)
        lease = await connection.fetchval("select id from supervisor.lease_ids('{mail}')")
        await connection.execute(f"select pg_advisory_lock(1885827842, {lease})")
        node.request(["mail"])
        told = await nodes.entries.wait_for("lease.waiting")
        assert told.fields["holder"] == "a session that is no node's"
        assert not node.held
        await connection.close()
        await nodes.holder("mail")
