"""The fence: a transaction under a lease keeps it, and cannot commit once the lease has passed on."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest
from support.cluster import cluster

from supervisor.errors import LeaseLost
from supervisor.leases.fence import begin_fence


async def bump(database: str, lease: str) -> None:
    connection = await asyncpg.connect(database)
    statement = "update supervisor.lease set epoch = epoch + 1, incarnation = $2 where name = $1"
    await connection.execute(statement, lease, uuid4())
    await connection.close()


async def test_the_fence_returns_the_transactions_id(database: str) -> None:
    """The fence returns the transaction's id, by which a commit of the worker's own is detected."""
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
