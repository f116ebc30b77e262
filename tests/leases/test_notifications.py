"""Requests between nodes, and the channels that others subscribe to."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import asyncpg
from support.clock import FakeClock
from support.cluster import cluster

from supervisor.leases.notifications import Notifications, RequestBackoff, request_payloads

if TYPE_CHECKING:
    from support.postgres import Postgres


def requested(*payloads: str) -> dict[int, int]:
    """Return which leases these notifications request."""
    notifications = Notifications(lambda: None)
    for payload in payloads:
        notifications._on_lease_payload(payload)
    return notifications.take_requests()


def test_requests_arrive() -> None:
    """A thousand leases that a node requests arrive complete, in notifications that PostgreSQL accepts."""
    leases = range(2_147_482_000, 2_147_483_000)
    payloads = list(request_payloads(leases, 2_147_483_647))
    assert max(map(len, payloads)) < 8000
    assert requested(*payloads) == dict.fromkeys(leases, 2_147_483_647)


def test_a_request_is_taken_once() -> None:
    """A request counts for the next plan and no other; the newest of several counts."""
    notifications = Notifications(lambda: None)
    notifications._on_lease_payload("give 1,2 to 3")
    notifications._on_lease_payload("give 2 to 4")
    assert notifications.take_requests() == {1: 3, 2: 4}
    assert notifications.take_requests() == {}


def test_other_payloads_request_nothing() -> None:
    """Any session may notify on the channel: a payload that is no request wakes the node and does no more."""
    assert (
        requested("", "released", "nodes", "give", "give to 3", "give x to 3", "give 1 to x", "give 1", "give ² to 3")
        == {}
    )


def test_a_request_in_vain_is_repeated_at_growing_intervals() -> None:
    """A lease whose holder takes its time is requested again, ever less often; another one at once."""
    clock = FakeClock()
    backoff = RequestBackoff(clock=clock)
    asked = []
    for tick in range(2000):
        if backoff.is_due((1, 2)):
            asked.append(tick / 10)
        clock._now_s += 0.1
    gaps = [round(later - earlier, 1) for earlier, later in pairwise(asked)]
    assert asked[0] == 0.0
    assert gaps[0] < 0.6
    assert gaps == sorted(gaps)
    assert 15.0 <= gaps[-1] <= 15.2
    assert backoff.is_due((1, 2, 3))
    assert not backoff.is_due((1, 2, 3))
    assert not backoff.is_due(())
    assert backoff.is_due((1, 2, 3))


async def test_a_subscriber_is_called_on_each_session(postgres: Postgres) -> None:
    """A subscriber gets each notification, and an empty payload on each new session, because some may be missing."""
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
    """A node that left, of a daemon that goes on without leases, does not listen and is not registered any more."""
    heard: list[str] = []
    async with cluster(postgres.dsn()) as nodes:
        node = await nodes.add("mail")
        node.node.subscribe("supervisor_event", heard.append)
        await nodes.holder("mail")
        node.occupants["mail"].local.decline()
        await nodes.until(lambda: not node.held)
        await node.node.leave()
        assert not await nodes.query("select from supervisor.lock_holders")
        assert not await nodes.query("select from supervisor.node")
        speaker = await asyncpg.connect(postgres.dsn())
        await speaker.execute("notify supervisor_event, 'one'")
        await speaker.close()
        assert await node.database.monitor.check_now()
        await asyncio.sleep(0.1)
        assert "one" not in heard
        assert not nodes.entries.of("database.reconnected")
