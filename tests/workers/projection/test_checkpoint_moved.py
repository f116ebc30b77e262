"""A checkpoint that is moved from outside, the entries about lag, and a dump that is restored elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
from support.database_fixture import FastClock
from support.postgres import run_tool
from support.projection_harness import Seen, appended, projection_harness, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.postgres import Postgres


async def _reset(dsn: str, to: int = 0) -> None:
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("select supervisor.reset_projection('view', $1)", to)
    await connection.close()


async def test_a_reset_rebuilds_while_events_come_in(database: str) -> None:
    """After a reset every event is applied again, exactly once and in order, while new ones come in."""
    async with projection_harness(database) as st:
        await st.append_many(3_000)
        await st.play(Seen(), batch=50)
        await st.applied_upto((await appended(st))[-1])
        ends = asyncio.Event()
        writing = asyncio.create_task(_write(database, ends))
        await st.owner.execute("truncate seen")
        await _reset(database)
        # What was applied between these two statements may be there twice: it was applied before the reset, too.
        await st.applied_upto(3_001)
        ends.set()
        await writing
        positions = await appended(st)
        await st.applied_upto(positions[-1])
        applied = await seen(st)
        begin = applied.index(positions[0])
        assert applied[begin:] == positions
        assert st.entries.of("projection.moved")[0].fields["position"] == 0


async def test_an_idle_projection_notices_a_reset(database: str) -> None:
    """It does so without a new event."""
    async with projection_harness(database) as st:
        await st.append_many(10)
        positions = await appended(st)
        await st.play(Seen())
        await st.applied_upto(positions[-1])
        await st.until(lambda: st.house.count("idle") == st.house.count("size"))
        await _reset(database, positions[6])
        await st.until(lambda: st.entries.of("projection.moved"))
        await st.applied_upto(positions[-1])
        assert await seen(st) == positions + positions[7:]


async def test_a_reset_during_a_batch_rolls_it_back(database: str) -> None:
    """The batch in progress leaves nothing: the run continues where the reset says."""
    async with projection_harness(database) as st:
        await st.append_many(10)
        positions = await appended(st)
        begun, goes_on = asyncio.Event(), asyncio.Event()
        handler = Seen()

        async def slow(ctx: Any, events: Sequence[Any]) -> None:
            await handler(ctx, events)
            if events[0].position == positions[5]:
                begun.set()
                await goes_on.wait()

        await st.play(slow, batch=5)
        await begun.wait()
        await _reset(database)
        goes_on.set()
        await st.applied_upto(positions[-1])
        assert await seen(st) == positions[:5] + positions
        assert handler.batches == [5, 5, 5, 5]


async def test_a_reset_to_the_current_position_changes_nothing(database: str) -> None:
    """The batch in progress is rolled back and applied again, once."""
    async with projection_harness(database) as st:
        await st.append_many(4)
        positions = await appended(st)
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def slow(ctx: Any, events: Sequence[Any]) -> None:
            await ctx.tx.executemany(
                "insert into seen (name, position) values ('view', $1)", [(event.position,) for event in events]
            )
            begun.set()
            await goes_on.wait()

        await st.play(slow)
        await begun.wait()
        await _reset(database)
        goes_on.set()
        await st.applied_upto(positions[-1])
        assert await seen(st) == positions


async def test_lag_is_logged_once_and_when_it_is_over(database: str) -> None:
    """One entry when the oldest event has waited for `lag_warning`, also during one long call, and one afterwards."""
    async with projection_harness(database, clock=FastClock()) as st:
        goes_on = asyncio.Event()

        async def slow(_: Any, __: Sequence[Any]) -> None:
            await goes_on.wait()

        actor = await st.play(slow, lag_warning_s=5.0)
        await st.append_many(7)
        told = await st.entries.wait_for("projection.lagging")
        assert told.fields["events"] == 7
        assert told.fields["lag_s"] >= 5
        lag = actor.work.lag
        assert lag is not None
        assert (lag.events, lag.seconds > 5) == (7, True)
        await asyncio.sleep(0.3)
        goes_on.set()
        over = await st.entries.wait_for("projection.caught_up")
        assert over.fields["took_s"] > 0
        await st.until(lambda: actor.work.lag == (0, 0.0))
        assert len(st.entries.of("projection.lagging")) == 1


async def test_being_held_back_is_a_lag_too(database: str) -> None:
    """An event behind an open transaction waits, and that counts as lag."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.play(Seen(), lag_warning_s=5.0)
        other = await asyncpg.connect(database)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("select supervisor.append('s', 't')")
        await st.append("s")
        await st.entries.wait_for("projection.lagging")
        await transaction.commit()
        await st.entries.wait_for("projection.caught_up")
        await other.close()


async def test_no_lag_is_logged_if_that_is_off(database: str) -> None:
    """`lag_warning = "0s"` never warns."""
    async with projection_harness(database, clock=FastClock()) as st:
        goes_on = asyncio.Event()

        async def slow(_: Any, __: Sequence[Any]) -> None:
            await goes_on.wait()

        actor = await st.play(slow, lag_warning_s=0.0)
        await st.append("s")
        await st.until(lambda: actor.work.lag is not None and actor.work.lag.seconds > 30)
        goes_on.set()
        await st.until(lambda: actor.work.lag == (0, 0.0))
        assert "projection.lagging" not in st.entries.events


async def test_a_dump_restored_into_another_cluster_continues(
    postgres: Postgres, make_postgres: Callable[[], Postgres]
) -> None:
    """Positions, checkpoints, earlier shardings and dead letters survive a dump and a restore."""
    async with projection_harness(postgres.dsn(), clock=FastClock()) as st:
        # The old cluster has come further with its transaction ids than the new one.
        for _ in range(50):
            await st.owner.execute("select pg_current_xact_id()")
        await st.append_many(50)
        first = await appended(st)
        actor = await st.play(Seen(lambda event: event.data.get("n") == 20), poison="dead-letter")
        await st.applied_upto(first[-1])
        await actor.end()
        await st.append_many(5)
        dump = run_tool("pg_dump", "-d", postgres.dsn(host="socket"))
    other = make_postgres()
    _restore(other, dump)
    async with projection_harness(other.dsn()) as st:
        handler = Seen()
        await st.play(handler, poison="dead-letter")
        last = await st.append("s")
        await st.applied_upto(last)
        positions = await appended(st)
        assert handler.positions == positions[-6:]
        assert await seen(st) == [position for position in positions if position != first[19]]
        assert last == max(positions)
        assert await st.owner.fetchval("select count(*) from supervisor.dead_letter") == 1


def _restore(server: Postgres, dump: str) -> None:
    script = server.home / "dump.sql"
    script.write_text(dump)
    run_tool("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.dsn(host="socket"), "-f", script)


async def _write(dsn: str, ends: asyncio.Event) -> None:
    connection = await asyncpg.connect(dsn)
    while not ends.is_set():
        await connection.execute("select supervisor.append('live', 't')")
        await asyncio.sleep(0.002)
    await connection.close()
