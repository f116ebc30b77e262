"""The fence: a transaction under a lease keeps it, and cannot commit once the lease has passed on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest
from support.cluster import cluster

from supervisor.errors import LeaseLost
from supervisor.leases.fence import begin_fence

if TYPE_CHECKING:
    from support.cluster import Member


# How asyncpg says that the server has ended a session.
ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


async def bump(database: str, lease: str) -> None:
    connection = await asyncpg.connect(database)
    statement = "update supervisor.lease set epoch = epoch + 1, incarnation = $2 where name = $1"
    await connection.execute(statement, lease, uuid4())
    await connection.close()


async def test_a_transaction_is_told_its_number(database: str) -> None:
    """Entering returns the transaction's id, by which a commit behind its back is found."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        connection = await asyncpg.connect(database)
        async with connection.transaction():
            number = await begin_fence(connection, first.occupants["mail"].lease, 5.0)
            assert number == int(await connection.fetchval("select pg_current_xact_id()::text"))
            assert await connection.fetchval("show idle_in_transaction_session_timeout") == "1min"
        assert await connection.fetchval("show idle_in_transaction_session_timeout") == "0"
        await connection.close()


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_a_stale_epoch_cannot_commit(database: str, isolation: str) -> None:
    """Once the epoch has grown a transaction of the former holder fails, at every level of isolation."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        lease = first.occupants["mail"].lease
        connection = await asyncpg.connect(database)
        transaction = connection.transaction(isolation=isolation)  # type: ignore[arg-type]
        await transaction.start()
        await connection.fetchval("select 1")  # a snapshot, where one lasts, that is older than the bump
        await bump(database, "mail")
        with pytest.raises(LeaseLost, match="mail has passed on: epoch 1"):
            await begin_fence(connection, lease, 5.0)
        await transaction.rollback()
        await connection.close()


async def take_over(holder: Member, rival: Member) -> None:
    """End the holder's session and keep it from coming back, so that the rival takes over."""
    holder.node.stand("mail").is_offered = False
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
        await nodes.until(lambda: second.held, limit_s=1.0)
        assert second.occupants["mail"].epochs == [2]
        await connection.close()


async def test_a_transaction_that_does_not_end_is_ended(database: str) -> None:
    """An acquisition ends the session of a former holder's transaction that stays open for more than a second."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        second = await nodes.add("mail")
        connection = await asyncpg.connect(database)
        await connection.execute("begin")
        await begin_fence(connection, first.occupants["mail"].lease, 5.0)
        await take_over(first, second)
        await nodes.until(lambda: second.held, limit_s=4.0)
        assert second.occupants["mail"].epochs == [2]
        with pytest.raises(ENDED):
            await connection.execute("commit")
        connection.terminate()


async def test_an_acquisition_waits_for_no_pool(database: str) -> None:
    """Where workers have all connections an acquisition gives its lock back, says why, and works out later."""
    async with cluster(database) as nodes:
        first = await nodes.add(pool_max=1)
        pool, connection = await first.database.acquire(None)
        first.stand_for(["mail"])
        await nodes.until(lambda: first.node.summary()["trouble"])
        assert "the pool gave no connection within 2s" in first.node.summary()["trouble"]
        told = await nodes.entries.wait_for("lease.trouble")
        assert "the pool gave no connection within 2s" in told.fields["reason"]
        second = await nodes.add("mail")
        await nodes.until(lambda: second.held == {"mail"})
        await second.stop()
        await first.database.release(pool, connection)
        await nodes.until(lambda: first.held == {"mail"})
        await nodes.until(lambda: not first.node.summary()["trouble"])
        await nodes.entries.wait_for("lease.untroubled")
        assert len(nodes.entries.of("lease.trouble")) == 1


async def test_a_lease_whose_row_is_deleted_gets_another(database: str) -> None:
    """A lease whose row was deleted by hand is lost to the fence, and taken again with a new row."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        connection = await asyncpg.connect(database)
        await connection.execute("delete from supervisor.lease")
        await connection.close()
        with pytest.raises(LeaseLost):
            await first.commit("mail")
        first.node.stand("mail").report_lost("the fence refused it")
        await nodes.until(lambda: len(first.occupants["mail"].epochs) == 2)
        await first.commit("mail")
