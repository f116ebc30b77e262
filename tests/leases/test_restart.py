"""PostgreSQL restarts under several nodes: each node comes back and holds the leases that it held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest
from support.cluster import cluster
from support.database_fixture import aside
from support.pace import slack_s

if TYPE_CHECKING:
    from support.postgres import Postgres

NAMES = [f"w{number}" for number in range(9)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_leases_come_back_to_their_holders(postgres: Postgres, mode: Literal["fast", "immediate"]) -> None:
    """After a restart of the server under three nodes each holds what it held, within a second and a half."""
    loop = asyncio.get_running_loop()
    async with cluster(postgres.dsn()) as nodes:
        for _ in range(3):
            await nodes.add(*NAMES)
        await nodes.until(lambda: [len(one.held) for one in nodes.members] == [3, 3, 3])
        before = [set(one.held) for one in nodes.members]
        await asyncio.sleep(1)
        for _ in range(2):
            await aside(postgres.stop, mode)
            await nodes.until(lambda: not any(one.held for one in nodes.members))
            await aside(postgres.start)
            began = loop.time()
            await nodes.until(lambda: [one.held for one in nodes.members] == before)
            for member in nodes.members:
                for lease in member.held:
                    await member.commit(lease)
            took_s = loop.time() - began
            assert took_s < 3.0 + await slack_s(postgres.dsn())
        assert nodes.counted("lease.lost") == [3] * 6
        assert not any(one.overrun for one in nodes.members)


async def test_what_a_node_that_stays_away_held_is_taken_over(postgres: Postgres) -> None:
    """A node that does not come back after a restart loses its leases to the others after a short wait."""
    async with cluster(postgres.dsn()) as nodes:
        first, second = await nodes.add(*NAMES), await nodes.add(*NAMES)
        await nodes.until(lambda: len(first.held) in (4, 5) and len(first.held) + len(second.held) == 9)
        await aside(postgres.stop, "fast")
        await first.kill()
        await aside(postgres.start)
        await nodes.until(lambda: len(second.held) == 9)


async def test_a_node_begins_while_the_server_restarts(postgres: Postgres) -> None:
    """A node that joins amid an outage waits it out."""
    async with cluster(postgres.dsn()) as nodes:
        node = nodes.make()
        node.tasks.start(node.database.monitor.run(), name="monitor")
        await node.database.wait_until_up()
        await aside(postgres.stop, "fast")
        joining = asyncio.ensure_future(node.node.join())
        await asyncio.sleep(0.2)
        await aside(postgres.start)
        async with asyncio.timeout(30):
            await joining
        node.request(["mail"])
        await nodes.holder("mail")
