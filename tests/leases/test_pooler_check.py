"""Proxies: one that pools transactions is refused, one that pools sessions is accepted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.cluster import Cluster, cluster
from support.pgbouncer import pgbouncer

from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.postgres import Postgres


async def plain(dsn: str) -> asyncpg.Connection:
    """Connect as a client that knows of the proxy, once that listens."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                return await asyncpg.connect(dsn, statement_cache_size=0)
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def others(dsn: str, count: int, busy: bool) -> AsyncIterator[None]:
    """Keep other clients connected through the proxy, which do something all the time, or did so once."""
    connections = [await plain(dsn) for _ in range(count)]

    async def work(connection: asyncpg.Connection) -> None:
        while True:
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute("begin; select pg_sleep(0.003); commit")
            if not busy:
                return

    tasks = [asyncio.ensure_future(work(connection)) for connection in connections]
    if not busy:
        await asyncio.gather(*tasks)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            connection.terminate()


async def refusal(nodes: Cluster, dsn: str) -> str:
    """Return why a node behind a proxy is refused."""
    node = nodes.make(dsn=dsn)
    with pytest.raises(ConfigError) as caught:
        await node.start()
    await node.kill()
    return str(caught.value)


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("round_robin", [0, 1])
async def test_a_proxy_that_pools_transactions_is_refused(
    postgres: Postgres, count: int, busy: bool, round_robin: int
) -> None:
    """Behind a transaction-pooling pgbouncer, idle or busy, a node does not start, says why and leaves no trace."""
    with pgbouncer(postgres, "transaction", server_round_robin=round_robin) as dsn:
        async with cluster(postgres.dsn()) as nodes:
            await (await plain(dsn)).close()
            async with others(dsn, count, busy):
                message = await refusal(nodes, dsn)
            assert message.startswith("the test: a proxy between here")
            assert "a proxy between here and the server pools transactions" in message
            await left_clean(nodes, dsn)


async def left_clean(nodes: Cluster, dsn: str) -> None:
    """Make sure that no server process behind a proxy has kept anything of a node's."""
    assert not await nodes.query("select from pg_locks where locktype = 'advisory'")
    assert not await nodes.query("select from pg_stat_activity where state like 'idle in transaction%'")
    clients = [await plain(dsn) for _ in range(3)]
    settings: list[Any] = [await client.fetchval("show idle_session_timeout") for client in clients]
    listening = [await client.fetch("select pg_listening_channels()") for client in clients]
    for client in clients:
        await client.close()
    assert set(settings) == {"0"}
    assert not any(listening)


async def test_a_proxy_that_pools_statements_is_refused(postgres: Postgres) -> None:
    """A proxy that refuses transactions altogether is refused too."""
    with pgbouncer(postgres, "statement") as dsn:
        async with cluster(postgres.dsn()) as nodes:
            await (await plain(dsn)).close()
            assert "pools transactions" in await refusal(nodes, dsn)


async def test_a_pool_of_one_process_is_refused(postgres: Postgres) -> None:
    """A transaction-pooling proxy with a single server process does not make the check hang."""
    with pgbouncer(postgres, "transaction", default_pool_size=1) as dsn:
        async with cluster(postgres.dsn()) as nodes:
            await (await plain(dsn)).close()
            assert "pools transactions" in await refusal(nodes, dsn)


async def test_a_proxy_that_pools_sessions_is_fine(postgres: Postgres) -> None:
    """Behind a session-pooling pgbouncer nodes hold leases, hand them over and notify each other."""
    with pgbouncer(postgres, "session", server_reset_query="DISCARD ALL") as dsn:
        async with cluster(postgres.dsn()) as nodes:
            await (await plain(dsn)).close()
            first = await nodes.add("mail", "other", dsn=dsn)
            await nodes.until(lambda: len(first.held) == 2)
            second = await nodes.add("mail", "other", dsn=dsn)
            await nodes.until(lambda: len(first.held) == len(second.held) == 1)
            await first.stop()
            await nodes.until(lambda: len(second.held) == 2)
            for lease in second.held:
                await second.commit(lease)
            assert not any(told.level > 30 for told in nodes.entries.all)
