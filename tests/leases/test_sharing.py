"""Many leases over several nodes: fair shares after a join, a leave or a death, and no move without need."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import asyncpg
from support.cluster import cluster
from support.pace import slack_s

if TYPE_CHECKING:
    from support.cluster import Cluster, Member

MANY = [f"shard/{number}of1000" for number in range(1, 1001)]


def spread(nodes: Cluster) -> list[int]:
    """Return how many leases each node holds, fewest first."""
    return sorted(len(member.held) for member in nodes.members)


def epochs(nodes: Cluster) -> int:
    """Return how often leases were acquired."""
    return sum(len(occupant.epochs) for member in nodes.members for occupant in member.occupants.values())


def doubles(nodes: Cluster) -> set[str]:
    """Return the leases under which two workers run at this moment."""
    count = Counter(name for member in nodes.members for name in member.held)
    return {name for name, workers in count.items() if workers > 1}


async def test_a_node_that_joins_gets_its_share_and_nothing_moves_after_that(database: str) -> None:
    """Leases move to a node that joins until the shares are fair, each at most once, and then stay."""
    names = [f"w{number}" for number in range(12)]
    async with cluster(database) as nodes:
        await nodes.add(*names)
        await nodes.until(lambda: spread(nodes) == [12])
        await nodes.add(*names)
        await nodes.until(lambda: spread(nodes) == [6, 6])
        await nodes.add(*names)
        await nodes.until(lambda: spread(nodes) == [4, 4, 4])
        taken = epochs(nodes)
        assert taken == 12 + 6 + 4
        await asyncio.sleep(2)  # four snapshots of each
        assert epochs(nodes) == taken
        assert spread(nodes) == [4, 4, 4]


async def test_a_node_that_leaves_leaves_its_share_to_the_others(database: str) -> None:
    """What a node releases when it stops is shared out fairly."""
    names = [f"w{number}" for number in range(12)]
    async with cluster(database) as nodes:
        first = await nodes.add(*names)
        await nodes.add(*names)
        await nodes.add(*names)
        await nodes.until(lambda: spread(nodes) == [4, 4, 4])
        await first.stop()
        await nodes.until(lambda: spread(nodes) == [6, 6])
        left = "select from supervisor.node where id not in (select id from supervisor.lock_holders)"
        assert not await nodes.query(left)


async def test_a_node_gets_only_what_it_requests(database: str) -> None:
    """A node whose configuration has other workers gets no lease of a worker that it does not have."""
    async with cluster(database) as nodes:
        first = await nodes.add("a", "b", "c", "d")
        await nodes.until(lambda: len(first.held) == 4)
        second = await nodes.add("c", "d", "e")
        await nodes.until(lambda: second.held >= {"e"} and spread(nodes) == [2, 3])
        assert second.held <= {"c", "d", "e"}


async def statements(members: list[Member], seconds: float) -> list[int]:
    """Count the statements on the sessions of nodes in a time."""
    asked: Counter[str] = Counter()

    def listen(member: Member) -> None:
        link = member.database.monitor.connected
        assert link is not None
        link.connection.add_query_logger(lambda _: asked.update([member.name]))

    for member in members:
        listen(member)
    await asyncio.sleep(seconds)
    return [asked[member.name] for member in members]


async def test_a_thousand_leases_over_four_nodes(database: str) -> None:
    """A thousand leases are balanced within five seconds after a join and a death, and then cost little."""
    loop = asyncio.get_running_loop()
    async with cluster(database) as nodes:
        await asyncio.gather(*(nodes.add(*MANY) for _ in range(3)))
        await nodes.until(lambda: spread(nodes) == [333, 333, 334])
        began = loop.time()
        fourth = await nodes.add(*MANY)
        await nodes.until(lambda: spread(nodes) == [250, 250, 250, 250])
        joined_s = loop.time() - began
        before = epochs(nodes)
        counts = await statements(nodes.members, 3)
        assert epochs(nodes) == before
        assert max(counts) <= 12
        began = loop.time()
        await fourth.kill()
        await nodes.until(lambda: spread(nodes) == [333, 333, 334])
        died_s = loop.time() - began
        more_s = await slack_s(database)
        assert joined_s < 5 + more_s
        assert died_s < 5 + more_s
        assert not doubles(nodes)


async def test_a_single_node_executes_one_statement_in_five_seconds(database: str) -> None:
    """Scenario 24: a node that holds all it wants executes a statement every five seconds; its session is idle."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail", "other")
        await nodes.until(lambda: len(first.held) == 2)
        await asyncio.sleep(1)
        asked_s: list[float] = []
        link = first.database.monitor.connected
        assert link is not None
        link.connection.add_query_logger(lambda _: asked_s.append(asyncio.get_running_loop().time()))
        await nodes.until(lambda: len(asked_s) == 2)
        assert asked_s[1] - asked_s[0] > 4.5
        [row] = await nodes.query(
            "select state, xact_start, backend_xmin, wait_event from pg_stat_activity where pid = $1", first.backend()
        )
        assert (row["state"], row["xact_start"], row["backend_xmin"]) == ("idle", None, None)


async def test_a_frozen_node_is_handed_nothing(database: str) -> None:
    """A node that does not tick, though its session lives, gets no lease, and others acquire its share."""
    names = [f"w{number}" for number in range(4)]
    async with cluster(database) as nodes:
        first = await nodes.add(*names)
        await nodes.until(lambda: len(first.held) == 4)
        frozen = nodes.make()
        frozen.tasks.start(frozen.database.monitor.run(), name="monitor")
        await frozen.node.join()
        frozen.tasks.cancel("leases")  # it joins, publishes what it wants, and ticks no more
        frozen.request(names)
        await frozen.node._registration.publish_wanted(frozen.node._registration.current)  # type: ignore[arg-type]
        await asyncio.sleep(2)
        assert len(first.held) == 4
        third = await nodes.add(*names)
        await nodes.until(lambda: len(first.held) == 2 and len(third.held) == 2)
        await third.stop()
        # Half of them were free, and of the frozen node's share.
        await nodes.until(lambda: len(first.held) == 4, limit_s=12)  # before the server ends the frozen one's session


async def test_two_nodes_that_start_at_once_never_hold_the_same(database: str) -> None:
    """Ten nodes that request the same leases in the same instant share them out, none twice."""
    names = [f"w{number}" for number in range(20)]
    async with cluster(database) as nodes:
        await asyncio.gather(*(nodes.add(*names) for _ in range(10)))
        await nodes.until(lambda: spread(nodes) == [2] * 10)
        assert not doubles(nodes)
        rows = await nodes.query("select epoch from supervisor.lease")
        assert sum(row["epoch"] for row in rows) == epochs(nodes)


async def test_a_lock_tried_a_thousand_times_is_free_after_one_release(database: str) -> None:
    """Scenario 22: a lock that was tried for a thousand times while it was held is free after one release."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        joined = first.node._registration.current
        assert joined is not None
        lease = first.occupants["mail"].lease.id
        for _ in range(1000):
            [(held,)] = await joined.session.fetch("select supervisor.try_lease_locks($1)", [lease])
            assert held == [lease]
        await joined.session.fetch("select pg_advisory_unlock(1885827842, $1)", lease)
        assert not await nodes.query("select from supervisor.lock_holders where kind = 'lease'")


async def test_a_stacked_lock_goes_with_one_release(database: str) -> None:
    """Scenario 22: a lock that was taken a thousand times, by whatever mistake, is free after one release."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        joined = first.node._registration.current
        assert joined is not None
        stack = "select count(pg_advisory_lock(1885827842, $1)) from generate_series(1, 1000)"
        await joined.session.fetch(stack, first.occupants["mail"].lease.id)
        second = await nodes.add("mail")
        first.node.lease("mail").decline()
        await nodes.until(lambda: second.held == {"mail"})


async def test_a_deleted_row_is_made_again(database: str) -> None:
    """Scenario 25: a node whose row is deleted by hand registers again, and keeps what it holds."""
    async with cluster(database) as nodes:
        first = await nodes.add("mail")
        await nodes.holder("mail")
        second = await nodes.add("mail")
        connection = await asyncpg.connect(database)
        await connection.execute("delete from supervisor.node")
        await connection.close()
        first.node._wakeup.wake()
        second.node._wakeup.wake()

        async def registered() -> int:
            return len(await nodes.query("select from supervisor.node"))

        async with asyncio.timeout(30):
            while await registered() < 2:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
        assert first.occupants["mail"].epochs == [1]
        assert await first.commit("mail") == 1


async def test_a_stop_that_races_an_acquisition_leaves_nothing(database: str) -> None:
    """Scenario 23: a hundred stops, each amid an acquisition, leave no session and no lock behind."""
    async with cluster(database) as nodes:
        for number in range(100):
            node = nodes.make(name="racer")
            await node.start(["mail", "other"])
            await asyncio.sleep(number * 0.0002)
            await (node.stop() if number % 2 else node.kill())
        [row] = await nodes.query("select count(*) from supervisor.lock_holders")
        async with asyncio.timeout(30):
            while row["count"]:
                await asyncio.sleep(0.02)
                [row] = await nodes.query("select count(*) from supervisor.lock_holders")
        last = await nodes.add("mail", "other")
        await nodes.until(lambda: len(last.held) == 2)
        sessions = "select from pg_stat_activity where application_name = 'pgsupervisor racer'"
        async with asyncio.timeout(30):
            while await nodes.query(sessions):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.02)
