"""What nodes say to each other, and when."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import asyncpg
from support.clock import FakeClock
from support.cluster import cluster

from supervisor.leases.listening import Asking, Listening, requests_for

if TYPE_CHECKING:
    from support.postgres import Postgres


def hear(*payloads: str) -> dict[int, int]:
    """Return what is requested by notifications."""
    listening = Listening(lambda: None)
    for payload in payloads:
        listening._hear_lease(payload)
    return listening.take_requests()


def test_what_is_asked_is_heard() -> None:
    """A thousand leases that one node asks for are heard whole, in notifications that PostgreSQL takes."""
    leases = range(2_147_482_000, 2_147_483_000)
    payloads = list(requests_for(leases, 2_147_483_647))
    assert max(map(len, payloads)) < 8000
    assert hear(*payloads) == dict.fromkeys(leases, 2_147_483_647)


def test_a_request_is_taken_once() -> None:
    """A request counts for the next decision and no other; the newest of several counts."""
    listening = Listening(lambda: None)
    listening._hear_lease("give 1,2 to 3")
    listening._hear_lease("give 2 to 4")
    assert listening.take_requests() == {1: 3, 2: 4}
    assert listening.take_requests() == {}


def test_what_makes_no_sense_asks_for_nothing() -> None:
    """Anybody may notify on the channel: what is no request wakes the node and does no more."""
    assert (
        hear("", "released", "nodes", "give", "give to 3", "give x to 3", "give 1 to x", "give 1", "give ² to 3") == {}
    )


def test_a_request_in_vain_is_repeated_at_growing_distances() -> None:
    """A lease whose holder takes its time is asked for again and again, ever less often; another one at once."""
    clock = FakeClock()
    asking = Asking(clock=clock)
    asked = []
    for tick in range(2000):
        if asking.is_due((1, 2)):
            asked.append(tick / 10)
        clock._now_s += 0.1
    gaps = [round(later - earlier, 1) for earlier, later in pairwise(asked)]
    assert asked[0] == 0.0
    assert gaps[0] < 0.6
    assert gaps == sorted(gaps)
    assert 15.0 <= gaps[-1] <= 15.2
    assert asking.is_due((1, 2, 3))
    assert not asking.is_due((1, 2, 3))
    assert not asking.is_due(())
    assert asking.is_due((1, 2, 3))


async def test_a_subscriber_hears_again_on_each_session(postgres: Postgres) -> None:
    """Whoever subscribes hears notifications, and once of each new session, because it may have missed some."""
    heard: list[str] = []
    async with cluster(postgres.dsn()) as nodes:
        node = await nodes.add()
        node.node.subscribe("supervisor_event", heard.append)
        await nodes.until(lambda: heard == [""])
        speaker = await asyncpg.connect(postgres.dsn())
        await speaker.execute("notify supervisor_event, 'one'")
        await nodes.until(lambda: heard == ["", "one"])
        await speaker.execute(f"select pg_terminate_backend({node.backend()})")
        await nodes.until(lambda: heard == ["", "one", ""])
        await speaker.execute("notify supervisor_event, 'two'")
        await nodes.until(lambda: heard[3:] == ["two"])
        await speaker.close()


async def test_a_node_that_has_left_hears_nothing(postgres: Postgres) -> None:
    """A node that left, of a daemon that goes on without leases, listens no more and is registered no more."""
    heard: list[str] = []
    async with cluster(postgres.dsn()) as nodes:
        node = await nodes.add("mail")
        node.node.subscribe("supervisor_event", heard.append)
        await nodes.holder("mail")
        node.occupants["mail"].stand.decline()
        await nodes.until(lambda: not node.held)
        await node.node.leave()
        node.tasks.cancel("leases")
        assert not await nodes.query("select from supervisor.held")
        assert not await nodes.query("select from supervisor.node")
        speaker = await asyncpg.connect(postgres.dsn())
        await speaker.execute("notify supervisor_event, 'one'")
        await speaker.close()
        assert await node.database.monitor.check_now()
        await asyncio.sleep(0.1)
        assert "one" not in heard
        assert not nodes.entries.of("database.reconnected")
