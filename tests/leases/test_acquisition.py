"""Acquisitions that meet an open transaction, a busy pool or a deleted row."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
from support.cluster import cluster

from supervisor.database.error_class import CONNECTION_ERRORS
from supervisor.errors import LeaseLost
from supervisor.leases.fence import begin_fence

if TYPE_CHECKING:
    from support.cluster import Member
    from support.postgres import Postgres


GRANTS = """
    grant usage on schema supervisor to app;
    grant select on all tables in schema supervisor to app;
    grant execute on all functions in schema supervisor to app;
"""


async def take_over(holder: Member, rival: Member) -> None:
    """End the holder's session and keep it from coming back, so that the rival takes over."""
    holder.node.lease("mail").is_wanted = False
    link = holder.database.monitor.connected
    assert link is not None
    link.connection.terminate()
    assert rival is not holder


async def test_a_new_holder_waits_for_a_transaction_in_flight(database: str) -> None:
    """An acquisition waits for the former holder's open transaction, which may still commit."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        second = await nodes.add("mail")
        await asyncio.sleep(0.8)
        connection = await asyncpg.connect(database)
        transaction = connection.transaction()
        await transaction.start()
        await begin_fence(connection, first.occupants["mail"].lease, 5.0)
        await take_over(first, second)
        await asyncio.sleep(0.8)
        assert not second.held
        await transaction.commit()
        await nodes.until(lambda: second.held)
        assert second.occupants["mail"].epochs == [2]
        await connection.close()


async def test_a_transaction_that_does_not_end_is_ended(database: str) -> None:
    """An acquisition terminates a transaction of the former holder that stays open for more than a second."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        second = await nodes.add("mail")
        connection = await asyncpg.connect(database)
        await connection.execute("begin")
        await begin_fence(connection, first.occupants["mail"].lease, 5.0)
        await take_over(first, second)
        await nodes.until(lambda: second.held)
        assert second.occupants["mail"].epochs == [2]
        with pytest.raises(CONNECTION_ERRORS):
            await connection.execute("commit")
        connection.terminate()


async def test_an_acquisition_does_not_wait_for_the_pool(database: str) -> None:
    """Where workers have all connections, an acquisition releases its lock, says why, and succeeds later."""
    async with cluster(database) as nodes:
        first = await nodes.add(pool_max=1)
        pool, connection = await first.database.acquire(None)
        first.request(["mail"])
        await nodes.until(lambda: first.node.problem)
        assert "the pool gave no connection within 2s" in (first.node.problem or "")
        told = await nodes.entries.wait_for("lease.blocked")
        assert "the pool gave no connection within 2s" in told.fields["reason"]
        second = await nodes.add("mail")
        await nodes.until(lambda: second.held == {"mail"})
        await second.stop()
        await first.database.release(pool, connection)
        await nodes.until(lambda: first.held == {"mail"})
        await nodes.until(lambda: not first.node.problem)
        await nodes.entries.wait_for("lease.unblocked")
        assert len(nodes.entries.of("lease.blocked")) == 1


async def test_a_lease_whose_row_is_deleted_gets_another(database: str) -> None:
    """A lease whose row was deleted by hand fails at the fence, and is acquired again with a new row."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        connection = await asyncpg.connect(database)
        await connection.execute("delete from supervisor.lease")
        await connection.close()
        with pytest.raises(LeaseLost):
            await first.commit("mail")
        first.node.lease("mail").report_lost("the fence refused it")
        await nodes.until(lambda: len(first.occupants["mail"].epochs) == 2)
        await first.commit("mail")


async def test_a_transaction_of_another_role_cannot_be_ended(postgres: Postgres) -> None:
    """A node that may not terminate what keeps a lease says so, with the remedy, and acquires the lease afterwards."""
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
        await nodes.until(lambda: second.node.problem is not None)
        assert "this node may not end it: permission denied" in str(second.node.problem)
        assert "Let all nodes log in as one role, or GRANT pg_signal_backend" in str(second.node.problem)
        await connection.close()
        await nodes.until(lambda: second.held)


async def test_a_prepared_transaction_cannot_be_ended(postgres: Postgres) -> None:
    """A node whose lease is kept by a prepared transaction says where to look, and acquires the lease afterwards."""
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
        await nodes.until(lambda: second.node.problem is not None)
        assert "Look at pg_prepared_xacts" in str(second.node.problem)
        await connection.execute("rollback prepared 'forgotten'")
        await connection.close()
        await nodes.until(lambda: second.held)
