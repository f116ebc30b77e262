"""How a lease is lost: at once, by its own deadline, by the fence; and never released under a running worker."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from support.cluster import cluster
from support.database_fixture import aside
from support.pace import slack_s
from support.proxy import Proxy

from supervisor.errors import LeaseLost
from supervisor.leases.fence import begin_fence
from supervisor.leases.lease import LeaseStatus
from supervisor.leases.timing import GRACE_S, TRUST_S

if TYPE_CHECKING:
    from support.postgres import Postgres


def terminate(pid: int) -> str:
    return f"select pg_terminate_backend({pid})"


async def test_a_terminated_session_is_noticed_at_once(postgres: Postgres) -> None:
    """Scenario 19: when the server ends the holder's session, its worker ends at once and can write nothing more."""
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        second = await nodes.add("mail")
        await second.node._clock.sleep(0.8)  # past the reclaim window
        lease = first.occupants["mail"].lease
        loop = asyncio.get_running_loop()
        began = loop.time()
        await aside(postgres.execute, terminate(first.backend()))
        await nodes.until(lambda: first.occupants["mail"].ends == [LeaseStatus.LOST])
        noticed = loop.time() - began
        await nodes.until(lambda: [2] in [one.occupants["mail"].epochs[-1:] for one in (first, second)])
        assert await nodes.holders("mail")[0].commit("mail") == 2
        pool, connection = await first.database.acquire(None)
        async with connection.transaction():
            with pytest.raises(LeaseLost, match="epoch 1 is over"):
                await begin_fence(connection, lease, 5.0)
        await first.database.release(pool, connection)
        assert noticed < 0.5 + await slack_s(postgres.dsn())
        [lost] = nodes.entries.of("lease.lost")
        assert lost.fields["lease"] == "mail"
        assert lost.fields["epoch"] == 1
        assert "terminating connection due to administrator command (57P01)" in lost.fields["reason"]
        assert not first.overrun


async def test_a_hundred_leases_are_lost_in_one_entry(postgres: Postgres) -> None:
    """The loss of a session that held a hundred leases is one entry, not a hundred."""
    names = [f"w{number}" for number in range(100)]
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add(*names)
        await nodes.until(lambda: len(first.held) == 100)
        await aside(postgres.execute, terminate(first.backend()))
        await nodes.until(lambda: all(len(one.epochs) == 2 for one in first.occupants.values()))
        assert nodes.counted("lease.lost") == [100]
        await nodes.until(lambda: nodes.counted("lease.acquired") == [100, 100])


async def test_a_node_that_is_cut_off_stops_before_the_lock_can_go(postgres: Postgres) -> None:
    """Scenario 20: a holder that alone cannot reach the server ends its worker before another node can take over."""
    with Proxy(postgres.port) as proxy:
        async with cluster(postgres.dsn()) as nodes:
            first = await nodes.add("mail", dsn=postgres.dsn(port=proxy.port))
            await nodes.holder("mail")
            second = await nodes.add("mail")
            loop = asyncio.get_running_loop()
            await aside(proxy.freeze)
            began = loop.time()
            await nodes.until(lambda: first.occupants["mail"].ends, limit_s=30)
            ended = loop.time() - began
            assert not second.held
            assert TRUST_S - 6 < ended < TRUST_S + 1 + await slack_s(postgres.dsn())
            await nodes.until(lambda: second.held, limit_s=30)
            taken = loop.time() - began
            assert taken > ended + GRACE_S / 2
            assert taken < 20 + await slack_s(postgres.dsn())
            assert await second.commit("mail") == 2
            [lost] = nodes.entries.of("lease.lost")
            # Its trust and its limit for the unanswered statement end at the same time.
            assert re.search("no answer .* for 10s|did not answer within 5s", lost.fields["reason"])
            await aside(proxy.thaw)


@pytest.mark.parametrize("is_all", [True, False])
async def test_a_node_that_hears_nothing_frees_no_lock_under_its_worker(postgres: Postgres, is_all: bool) -> None:
    """A node that hears nothing keeps its session until what ran under it has ended, also when it has a new one."""
    with Proxy(postgres.port) as proxy:
        async with cluster(postgres.dsn()) as nodes:
            first = await nodes.add("mail", dsn=postgres.dsn(port=proxy.port), connect_timeout_s=1.0)
            await nodes.holder("mail")
            first.occupants["mail"].lingers_s = 1.5
            second = await nodes.add("mail")
            await second.node._clock.sleep(0.8)
            await (aside(proxy.freeze, "to_client") if is_all else aside(proxy.forget))
            first.node._wakeup.wake()  # sooner than its next heartbeat
            await nodes.until(lambda: first.occupants["mail"].ends == [LeaseStatus.LOST])
            while first.held:
                assert not second.held
                await asyncio.sleep(0.005)
            # Where it has a new session, the faster of the two acquires the lease.
            again = first.occupants["mail"].epochs
            await nodes.until(lambda: second.held or len(again) == 2)
            await aside(proxy.thaw)


async def test_a_restart_is_not_waited_out_by_the_slowest(postgres: Postgres) -> None:
    """After a restart of the server leases come back at once, though a worker of another one still ends."""
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add("quick", "slow")
        await nodes.until(lambda: len(first.held) == 2)
        slow = first.occupants["slow"]
        slow.is_stubborn = True
        await aside(postgres.restart)
        await nodes.until(lambda: first.occupants["quick"].epochs == [1, 2])
        assert slow.epochs == [1]
        slow.end()
        await nodes.until(lambda: first.occupants["slow"].epochs == [1, 2])


async def test_a_worker_that_overruns_its_lease_is_named(postgres: Postgres) -> None:
    """A worker that still runs when the grace after a loss is over is named, and its lease is not tried meanwhile."""
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        first.occupants["mail"].is_stubborn = True
        await aside(postgres.execute, terminate(first.backend()))
        await nodes.until(lambda: first.overrun == ["mail"])
        assert first.node.lease("mail").status is LeaseStatus.LOST
        assert not await nodes.query("select from supervisor.lock_holders where kind = 'lease'")
        first.overrun.clear()


async def test_a_lost_lease_comes_back_when_its_worker_has_ended(postgres: Postgres) -> None:
    """A loss that the fence found releases the lock once the worker has ended, and the node acquires it again."""
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        postgres.execute("update supervisor.lease set epoch = epoch + 1")
        lease = first.occupants["mail"].lease
        with pytest.raises(LeaseLost):
            await first.commit("mail")
        first.node.lease("mail").report_lost("the fence refused it")
        await nodes.until(lambda: first.occupants["mail"].epochs == [1, 3])
        assert await first.commit("mail") == 3
        assert first.occupants["mail"].lease.incarnation != lease.incarnation
        [lost] = nodes.entries.of("lease.lost")
        assert lost.fields["reason"] == "the fence refused it"


async def test_the_lock_stays_while_the_worker_of_a_revoked_lease_runs(postgres: Postgres) -> None:
    """A revoked lease is not released, and no other node holds it, until its worker has ended."""
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        second = await nodes.add("mail")
        first.occupants["mail"].is_stubborn = True
        first.node.lease("mail").decline()
        await first.node._clock.sleep(1.5)
        assert not second.held
        assert first.node.lease("mail").status is LeaseStatus.REVOKING
        first.occupants["mail"].is_running = False
        first.node.lease("mail").worker_ended()
        await nodes.until(lambda: second.held)


async def test_leaving_releases_nothing_under_a_running_worker(postgres: Postgres) -> None:
    """A node that leaves keeps the lock of a worker that would not end: it goes with the process."""
    async with cluster(postgres.dsn()) as nodes:
        first = await nodes.add("mail", "other")
        await nodes.until(lambda: len(first.held) == 2)
        second = await nodes.add("mail", "other")
        first.occupants["mail"].is_stubborn = True
        await first.node.drain()
        for occupant in first.occupants.values():
            occupant.local.decline()
        await nodes.until(lambda: second.held == {"other"})
        await first.node.leave()
        await second.node._clock.sleep(1.5)
        assert second.held == {"other"}
        assert await nodes.query("select from supervisor.lease where name = 'mail' and node_id is not null")
        await first.kill()
        await nodes.until(lambda: second.held == {"mail", "other"})


async def test_a_node_terminates_its_previous_session(postgres: Postgres) -> None:
    """After a cut that the server has not noticed, the node terminates the session that still holds its leases."""
    with Proxy(postgres.port) as proxy:
        async with cluster(postgres.dsn()) as nodes:
            first = await nodes.add("mail", dsn=postgres.dsn(port=proxy.port), connect_timeout_s=1.0)
            await nodes.holder("mail")
            former = first.backend()
            await aside(proxy.forget)  # the open connections hear nothing more; new ones are fine
            # Before the server would end it.
            await nodes.until(lambda: first.occupants["mail"].epochs == [1, 2], limit_s=14)
            assert first.backend() != former
            assert not await nodes.query("select from pg_stat_activity where pid = $1", former)
