"""Nodes on a real PostgreSQL: one holds a lease, and another acquires it when that one stops or dies."""

from __future__ import annotations

import asyncio

from support.cluster import cluster
from support.pace import slack_s


async def test_one_of_two_nodes_runs_a_singleton(database: str) -> None:
    """A lease that two nodes request is held by one of them, which can commit under it."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        second = await nodes.add("mail")
        holder = await nodes.holder("mail")
        assert holder is first
        assert await first.commit("mail") == 1
        assert not second.held


async def test_a_graceful_stop_hands_over_in_milliseconds(database: str) -> None:
    """When a node stops, another runs its singleton at once."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        second = await nodes.add("mail")
        await nodes.holder("mail")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await first.stop()
        await nodes.holder("mail", other_than=first)
        await second.commit("mail")
        took_s = loop.time() - began
        assert took_s < 0.5 + await slack_s(database)


async def test_a_killed_holder_is_taken_over_within_a_second(database: str) -> None:
    """When a node dies, another runs its singleton within about half a second."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        second = await nodes.add("mail")
        await nodes.holder("mail")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await first.kill()
        await nodes.holder("mail", other_than=first)
        assert await second.commit("mail") == 2
        took_s = loop.time() - began
        assert took_s < 2.0 + await slack_s(database)
