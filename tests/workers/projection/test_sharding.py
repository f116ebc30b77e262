"""A projection with several shards, and a change of their number while events come in."""

from __future__ import annotations

import asyncio
from itertools import groupby
from random import Random
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.database_fixture import FastClock
from support.projection_harness import Seen, appended, projection_harness, seen

from supervisor.errors import LeaseLost, ShardingConflict
from supervisor.workers.projection.sharding import ShardingClaims

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.projection_harness import Actor, ProjectionHarness


async def _check(st: ProjectionHarness, name: str = "view") -> None:
    """Check that every event was applied once, and those of each stream in order."""
    rows = await st.owner.fetch("select position, stream from seen where name = $1 order by id", name)
    applied = [row["position"] for row in rows]
    assert sorted(applied) == await appended(st)
    by_stream = sorted(((row["stream"], row["position"]) for row in rows), key=lambda pair: pair[0])
    for _, group in groupby(by_stream, key=lambda pair: pair[0]):
        positions = [position for _, position in group]
        assert positions == sorted(positions)


async def _through(st: ProjectionHarness, name: str = "view") -> None:
    """Wait until everything has been applied."""

    async def is_through() -> bool:
        return len(await seen(st, name)) >= len(await appended(st))

    await st.until(is_through)


class Few:
    """A handler that stops its run after some batches."""

    def __init__(self, batches: int) -> None:
        self._left = batches
        self.actor: Actor | None = None

    async def __call__(self, ctx: Any, events: Sequence[Any]) -> None:
        rows = [(ctx.name, event.position, event.stream) for event in events]
        await ctx.tx.executemany("insert into seen (name, position, stream) values ($1, $2, $3)", rows)
        self._left -= 1
        if self._left <= 0 and self.actor is not None:
            self.actor.stop.set()


async def test_shards_share_the_streams(database: str) -> None:
    """Each stream belongs to one shard; together they apply every event."""
    async with projection_harness(database) as st:
        handlers = [Seen() for _ in range(4)]
        for shard, handler in enumerate(handlers):
            await st.play(handler, shard=shard, shards=4)
        for n in range(200):
            await st.append(f"stream-{n % 23}")
        await _through(st)
        await _check(st)
        assert sum(len(handler.positions) for handler in handlers) == 200
        assert min(len(handler.positions) for handler in handlers) > 0
        total = await st.owner.fetchval("select sum(applied) from supervisor.checkpoint")
        assert total == 200


@pytest.mark.parametrize("seed", range(6))
async def test_any_number_of_shards_can_follow_any_other(database: str, seed: int) -> None:
    """The number changes again and again before the shards have caught up: nothing is lost or applied twice."""
    rng = Random(seed)
    async with projection_harness(database) as st:
        for _ in range(rng.randint(5, 8)):
            shards = rng.randint(1, 5)
            for _ in range(rng.randint(0, 40)):
                await st.append(f"stream-{rng.randint(0, 12)}")
            claims = ShardingClaims()
            for shard in rng.sample(range(shards), rng.randint(1, shards)):
                handler = Few(rng.randint(1, 4))
                actor = st.cast(handler, shard=shard, shards=shards, batch=rng.randint(1, 5), claims=claims)
                handler.actor = actor
                await actor.start()
                caught_up = asyncio.create_task(_idle(st, actor))
                assert actor.task is not None
                await asyncio.wait({actor.task, caught_up}, return_when=asyncio.FIRST_COMPLETED)
                caught_up.cancel()
                await actor.end()
        claims = ShardingClaims()
        for shard in range(3):
            await st.play(Seen(), shard=shard, shards=3, claims=claims)
        await _through(st)
        await _check(st)


async def _idle(st: ProjectionHarness, actor: Actor) -> None:
    await st.until(lambda: actor.work.lag is not None and actor.work.lag.events == 0 and st.house.count("idle") > 0)


async def test_the_number_of_shards_changes_while_events_come_in(database: str) -> None:
    """On two nodes, with 4 shards, then 2, then 3: each event once, in order per stream, at full speed."""
    async with projection_harness(database) as st:
        ends = asyncio.Event()
        writers = [asyncio.create_task(_write(database, ends, Random(n))) for n in range(4)]
        lost: list[BaseException] = []
        for shards in (4, 2, 3):
            claims = [ShardingClaims(), ShardingClaims()]
            before = len(await seen(st))
            actors = [
                await st.play(Seen(), shard=shard, shards=shards, batch=20, claims=claims[shard % 2])
                for shard in range(shards)
            ]

            async def has_moved(before: int = before) -> bool:
                return len(await seen(st)) > before + 150

            await st.until(has_moved)
            if shards != 3:
                # The next number is laid out while these still work; each is fenced out, at whatever it does.
                lost += await _reshard(st, actors)
        ends.set()
        await asyncio.gather(*writers)
        await _through(st)
        await _check(st)
        assert len(lost) == 6


async def _reshard(st: ProjectionHarness, actors: list[Actor]) -> list[BaseException]:
    """Reshard while the workers run, as a reloaded node does, and return the errors of their runs."""
    shards = actors[0].work._context.shard.shards
    await st.owner.fetchval("select supervisor.reshard('view', $1)", 2 if shards == 4 else 3)
    errors: list[BaseException] = []
    for actor in actors:
        assert actor.task is not None
        try:
            await actor.ended()
        except (LeaseLost, ShardingConflict) as error:
            errors.append(error)
    return errors


async def _write(dsn: str, ends: asyncio.Event, rng: Random) -> None:
    connection = await asyncpg.connect(dsn)
    while not ends.is_set():
        transaction = connection.transaction()
        await transaction.start()
        for _ in range(rng.randint(1, 5)):
            await connection.execute("select supervisor.append($1, 't')", f"stream-{rng.randint(0, 30)}")
        await asyncio.sleep(rng.random() * 0.01)
        await (transaction.rollback() if rng.random() < 0.2 else transaction.commit())
    await connection.close()


async def test_a_node_that_was_not_reloaded_does_not_run(database: str) -> None:
    """Its shards are fenced out; when they have leases again they find the new number of shards, and log it once."""
    async with projection_harness(database) as st:
        old, new = ShardingClaims(), ShardingClaims()
        handler = Seen()
        actor = await st.play(handler, shards=2, claims=old)
        await st.until(lambda: _is_laid_out(st, 2))
        await st.play(Seen(), shards=3, claims=new)
        await st.until(lambda: _is_laid_out(st, 3))
        for n in range(8):
            await st.append(f"s{n}")
        # The fence or the resharding, whichever comes first.
        with pytest.raises((LeaseLost, ShardingConflict)):
            await actor.ended()
        await actor.start()
        with pytest.raises(ShardingConflict, match="with 2 shards here, but a node with a newer configuration uses 3"):
            await actor.ended()
        # Another shard of the same daemon does not lay it out again either.
        sibling = await st.play(handler, shard=1, shards=2, claims=old)
        with pytest.raises(ShardingConflict):
            await sibling.ended()
        assert await _is_laid_out(st, 3)
        assert len(st.entries.of("projection.sharding_conflict", shards=3, own=2)) in (2, 3)
        # A reload makes new work, which lays out what its configuration says.
        old.touch("view", now_s=st.clock.now_s())
        await st.play(handler, shards=2, claims=old)
        await st.until(lambda: _is_laid_out(st, 2))


async def test_an_idle_shard_notices_a_resharding(database: str) -> None:
    """It does so without a new event: the resharding notifies."""
    async with projection_harness(database) as st:
        actor = await st.play(Seen(), shards=2)
        await st.until(lambda: _is_laid_out(st, 2))
        await st.until(lambda: st.house.count("idle") > 0)
        await st.owner.fetchval("select supervisor.reshard('view', 1)")
        with pytest.raises(ShardingConflict):
            await actor.ended()


async def test_a_resharding_waits_for_a_stuck_transaction(database: str) -> None:
    """It waits for a batch of a former shard, logs that once, and does not block other sessions meanwhile."""
    async with projection_harness(database) as st:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def stuck(ctx: Any, events: Sequence[Any]) -> None:
            begun.set()
            await goes_on.wait()
            await ctx.tx.execute("insert into seen (name, position) values ('view', $1)", events[0].position)

        await st.append("s")
        former = await st.play(stuck, shards=1)
        await begun.wait()
        await st.play(Seen(), shards=2, claims=ShardingClaims())
        await st.play(Seen(), shard=1, shards=2, claims=ShardingClaims())
        await st.entries.wait_for("projection.waiting", shards=2)
        await asyncio.sleep(0.2)
        assert await _is_laid_out(st, 1)
        goes_on.set()
        await former.end()
        await st.append("s")
        await _through(st)
        assert len(await seen(st)) == 2
        assert len(st.entries.of("projection.resharded", shards=2)) == 1


async def test_the_newest_configuration_wins_whoever_runs_first(database: str) -> None:
    """A node that was on standby since before another was reloaded does not undo that when it gets the lease."""
    async with projection_harness(database) as st:
        standby = st.cast(Seen(), shards=1, claims=ShardingClaims())
        await asyncio.sleep(0.05)
        await st.play(Seen(), shards=4, claims=ShardingClaims())
        await st.until(lambda: _is_laid_out(st, 4))
        await standby.start()
        with pytest.raises(ShardingConflict, match="uses 4"):
            await standby.ended()
        assert await _is_laid_out(st, 4)
        # Of two that were configured before they ran, too.
        older, newer = st.cast(Seen(), shards=2, claims=ShardingClaims()), None
        await asyncio.sleep(0.05)
        newer = st.cast(Seen(), shards=3, claims=ShardingClaims())
        await older.start()
        await st.until(lambda: _is_laid_out(st, 2))
        await newer.start()
        await st.until(lambda: _is_laid_out(st, 3))


async def test_another_database_is_sharded_too(database: str) -> None:
    """A database that does not know the projection is sharded, though the daemon had sharded another one before."""
    async with projection_harness(database) as st:
        actor = await st.play(Seen(), shards=2)
        await st.until(lambda: _is_laid_out(st, 2))
        await actor.end()
        await st.owner.execute("delete from supervisor.projection")
        await actor.start()
        await st.until(lambda: _is_laid_out(st, 2))


async def test_a_waiting_resharding_ends_with_its_worker(database: str) -> None:
    """A stop ends the wait for a stuck transaction."""
    async with projection_harness(database) as st:
        begun = asyncio.Event()

        async def stuck(_: Any, __: Sequence[Any]) -> None:
            begun.set()
            await asyncio.get_running_loop().create_future()

        await st.append("s")
        former = await st.play(stuck)
        await begun.wait()
        waiting = await st.play(Seen(), shards=2, claims=ShardingClaims())
        await st.entries.wait_for("projection.waiting")
        await waiting.end()
        assert former.task is not None
        former.task.cancel()
        await asyncio.wait({former.task})


async def test_many_nodes_shard_at_once(database: str) -> None:
    """Ten daemons that start at the same time create the shards once, without an error."""
    async with projection_harness(database, pool_max=20) as st:
        for n in range(10):
            await st.append(f"s{n}")
        for n in range(10):
            await st.play(Seen(), shard=n, shards=10, claims=ShardingClaims())
        await _through(st)
        await _check(st)
        assert await st.owner.fetchval("select count(*) from supervisor.checkpoint") == 10


async def test_a_dead_letter_keeps_what_earlier_shardings_applied(database: str) -> None:
    """After a resharding an event goes to the dead letters: the events behind it are still applied once each."""
    async with projection_harness(database, clock=FastClock()) as st:
        for n in range(40):
            await st.append(f"s{n % 8}", n=n)
        first = st.cast(Seen(), shards=2, batch=3)
        await first.start()
        await _idle(st, first)
        await first.end()
        applied = await seen(st)
        bad = next(position for position in await appended(st) if position not in applied)
        await st.owner.fetchval("select supervisor.reshard('view', 1)")
        await st.play(Seen(lambda event: event.position == bad), poison="dead-letter", claims=ShardingClaims())
        await st.until(lambda: _has_seen(st, 39))
        assert sorted(await seen(st)) == [position for position in await appended(st) if position != bad]


async def test_a_reset_forgets_what_earlier_shardings_applied(database: str) -> None:
    """After a reset every event is applied again, also one that a former shard had applied beyond the checkpoint."""
    async with projection_harness(database) as st:
        for n in range(40):
            await st.append(f"s{n}")
        claims = ShardingClaims()
        first = await st.play(Seen(), shards=2, batch=3, claims=claims)
        await _idle(st, first)
        await first.end()
        assert len(await seen(st)) < 40
        await st.owner.fetchval("select supervisor.reshard('view', 1)")
        assert (await st.checkpoint())["previous_shardings"] != "[]"
        await st.owner.execute("truncate seen")
        assert await st.owner.fetchval("select supervisor.reset_projection('view')")
        await st.play(Seen(), claims=ShardingClaims())
        await _through(st)
        await _check(st)


async def test_a_deleted_projection_begins_again(database: str) -> None:
    """The running shard creates its row again, logs that, and applies everything from the beginning."""
    async with projection_harness(database) as st:
        await st.play(Seen())
        await st.applied_upto(await st.append("s"))
        await st.owner.execute("delete from supervisor.projection")
        await st.append("s")
        await st.until(lambda: _has_seen(st, 3))
        assert len(st.entries.of("projection.restarted_from_zero", worker="view")) == 1
        assert st.entries.of("projection.sharding_conflict") == []


async def test_a_deleted_checkpoint_is_created_again(database: str) -> None:
    """That shard begins again and logs it; the other one does not notice."""
    async with projection_harness(database) as st:
        for shard in range(2):
            await st.play(Seen(), shard=shard, shards=2)
        for n in range(20):
            await st.append(f"s{n}")
        await _through(st)
        own = await st.owner.fetchval("select count(*) from supervisor.event where bucket % 2 = 1")
        await st.owner.execute("delete from supervisor.checkpoint where shard = 1")
        await st.append("t")
        await st.until(lambda: _has_seen(st, 21 + own))
        assert len(st.entries.of("projection.restarted_from_zero")) == 1
        assert len(st.entries.of("projection.restarted_from_zero", shard="2of2")) == 1
        assert st.entries.of("projection.sharding_conflict") == []


async def test_shards_change_although_a_checkpoint_was_deleted(database: str) -> None:
    """A resharding takes a missing row for a checkpoint at the beginning: nothing is lost, nothing fails."""
    async with projection_harness(database) as st:
        for n in range(20):
            await st.append(f"s{n}")
        for shard in range(3):
            await st.play(Seen(), shard=shard, shards=3)
        await _through(st)
        await asyncio.gather(*(actor.end() for actor in st.actors))
        own = await st.owner.fetchval("select count(*) from supervisor.event where bucket % 3 = 1")
        await st.owner.execute("delete from supervisor.checkpoint where shard = 1")
        await st.play(Seen(), claims=ShardingClaims())
        await st.until(lambda: _has_seen(st, 20 + own))


async def test_a_reset_creates_deleted_checkpoints_again(database: str) -> None:
    """The shard begins where the reset says, not at the start."""
    async with projection_harness(database) as st:
        await st.owner.fetchval("select supervisor.reshard('view', 2)")
        await st.append_many(5)
        await st.owner.execute("delete from supervisor.checkpoint")
        assert await st.owner.fetchval("select supervisor.reset_projection('view', 4)")
        assert await st.owner.fetchval("select array_agg(position) from supervisor.checkpoint") == [4, 4]


async def test_a_node_has_no_new_claim_until_an_operator_configures_it(database: str) -> None:
    """After a conflict new work has the same old claim; after `touch`, which a restart calls, it reshards."""
    async with projection_harness(database) as st:
        old = ShardingClaims()
        actor = await st.play(Seen(), shards=2, claims=old)
        await st.until(lambda: _is_laid_out(st, 2))
        await actor.end()
        await st.owner.fetchval("select supervisor.reshard('view', 3)")
        again = await st.play(Seen(), shards=2, claims=old)
        with pytest.raises(ShardingConflict):
            await again.ended()
        old.touch("view", now_s=st.clock.now_s())
        await again.start()
        with pytest.raises(ShardingConflict):  # it is of before
            await again.ended()
        assert await _is_laid_out(st, 3)
        await st.play(Seen(), shards=2, claims=old)
        await st.until(lambda: _is_laid_out(st, 2))


async def _has_seen(st: ProjectionHarness, count: int) -> bool:
    return len(await seen(st)) == count


async def _is_laid_out(st: ProjectionHarness, shards: int) -> bool:
    return bool(await st.owner.fetchval("select shards from supervisor.projection") == shards)
