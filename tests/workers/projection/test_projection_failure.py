"""What a projection does when a batch fails, the lease is lost, or a connection ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.database_fixture import FastClock
from support.pace import slack_s
from support.projection_harness import Seen, appended, projection_harness, seen
from support.proxy import Proxy

from supervisor.errors import LeaseLost, ProjectionHalted
from supervisor.leases.lease import LeaseStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.postgres import Postgres
    from support.projection_harness import ProjectionHarness


def _is(n: int) -> Any:
    return lambda event: event.data.get("n") == n


async def _terminate(st: ProjectionHarness, pid: int) -> None:
    async with st.house.view().acquire() as connection:
        await connection.execute("select pg_terminate_backend($1)", pid)


async def test_stops_at_the_event_that_it_cannot_apply(database: str) -> None:
    """The batch is split: what comes before is committed, the event is retried alone, then the projection halts."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(300)
        positions = await appended(st)
        handler = Seen(_is(217))
        actor = await st.play(handler)
        with pytest.raises(ProjectionHalted, match="event 218 "):
            await actor.ended()
        assert await seen(st) == positions[:216]
        assert handler.batches[-4:] == [1, 1, 1, 1]
        row = await st.checkpoint()
        assert (row["position"], row["applied"], row["poison"]) == (positions[215], 216, positions[216])
        assert row["error"] == f"ValueError: cannot apply {positions[216]}"
        told = st.entries.of("projection.poison")
        assert len(told) == 1
        fields = told[0].fields
        assert (fields["position"], fields["stream"], fields["event_type"]) == (positions[216], "s", "happened")
        assert fields["error_type"] == "ValueError"


@pytest.mark.parametrize("poison", ["stop", "dead-letter"])
@pytest.mark.parametrize(("text", "kept"), [("a\0b", "a\\x00b"), ("a\ud800b", "a\\ud800b")])
async def test_an_error_that_is_no_text_for_postgresql_is_poison_too(
    database: str, text: str, kept: str, poison: Any
) -> None:
    """A NUL or a lone surrogate in the message is escaped where it is recorded."""
    async with projection_harness(database, clock=FastClock()) as st:

        async def handler(_: Any, events: Sequence[Any]) -> None:
            if any(event.data["n"] == 2 for event in events):
                raise ValueError(text)

        await st.append_many(3)
        positions = await appended(st)
        actor = await st.play(handler, poison=poison)
        if poison == "stop":
            with pytest.raises(ProjectionHalted):
                await actor.ended()
            row = await st.checkpoint()
            assert (row["poison"], row["error"]) == (positions[1], f"ValueError: {kept}")
        else:
            await st.applied_upto(positions[-1])
            rows = await st.owner.fetch("select position, error from supervisor.dead_letter")
            assert [tuple(row) for row in rows] == [(positions[1], f"ValueError: {kept}")]


class _OwnBaseException(BaseException):
    """A base exception of the handler's own."""


async def _cancel_a_child() -> None:
    child = asyncio.ensure_future(asyncio.sleep(9))
    child.cancel()
    await child


async def _exit() -> None:
    raise SystemExit(3)


async def _raise_its_own() -> None:
    raise _OwnBaseException("no")


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (_cancel_a_child, "HandlerBaseException: the handler raised CancelledError"),
        (_exit, "HandlerBaseException: the handler raised SystemExit: 3"),
        (_raise_its_own, "HandlerBaseException: the handler raised _OwnBaseException: no"),
    ],
)
async def test_a_base_exception_of_the_handler_is_its_failure(database: str, act: Any, error: str) -> None:
    """A cancellation from inside, an exit and similar are split down to the event like any error."""
    async with projection_harness(database, clock=FastClock()) as st:
        seen_ = Seen()

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            await seen_(ctx, events)
            if any(event.data["n"] == 2 for event in events):
                await act()

        await st.append_many(3)
        positions = await appended(st)
        await st.play(handler, poison="dead-letter")
        await st.applied_upto(positions[-1])
        rows = await st.owner.fetch("select position, error from supervisor.dead_letter")
        assert [tuple(row) for row in rows] == [(positions[1], error)]
        assert await seen(st) == [positions[0], positions[2]]


async def test_a_cancellation_during_the_handler_ends_the_run(database: str) -> None:
    """A cancellation of the worker's own task is no failure, whatever the handler does with it."""
    async with projection_harness(database, clock=FastClock()) as st:
        begun = asyncio.Event()

        async def handler(_: Any, __: Sequence[Any]) -> None:
            if begun.is_set():
                return
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise _OwnBaseException from None

        await st.append("s")
        actor = await st.play(handler)
        await begun.wait()
        assert actor.task is not None
        actor.task.cancel()
        with pytest.raises(_OwnBaseException):
            await actor.ended()
        assert st.entries.of("projection.batch_failed") == []


async def test_continues_when_the_cause_is_gone(database: str) -> None:
    """The handler works again on a retry alone: the projection continues, and each event is applied once."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(40)
        failures = iter([True] * 7)
        handler = Seen(lambda event: event.data["n"] == 11 and next(failures, False))
        await st.play(handler)
        await st.applied_upto((await appended(st))[-1])
        assert await seen(st) == await appended(st)
        assert st.entries.of("projection.poison") == []
        assert st.entries.of("projection.batch_failed") != []


async def test_a_poisoned_event_goes_to_the_dead_letters(database: str) -> None:
    """With poison = "dead-letter" the whole event is kept there, and everything else is applied."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(60)
        positions = await appended(st)
        await st.play(Seen(lambda event: event.data["n"] in (1, 33, 60)), poison="dead-letter")
        await st.applied_upto(positions[-1])
        bad = [positions[0], positions[32], positions[59]]
        assert await seen(st) == [position for position in positions if position not in bad]
        letters = await st.owner.fetch("select * from supervisor.dead_letter order by position")
        assert [row["position"] for row in letters] == bad
        assert letters[1]["data"] == '{"n": 33}'
        assert letters[1]["error"] == f"ValueError: cannot apply {bad[1]}"
        assert (await st.checkpoint())["applied"] == 57


async def test_skip_continues_after_the_event(database: str) -> None:
    """`skip` moves the event to the dead letters; the next run begins after it."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(5)
        positions = await appended(st)
        actor = await st.play(Seen(_is(2)))
        with pytest.raises(ProjectionHalted):
            await actor.ended()
        assert await st.owner.fetchval("select array_agg(p) from supervisor.skip_poison('view') p") == [positions[1]]
        actor.go_on()
        await st.applied_upto(positions[-1])
        assert await seen(st) == [positions[0], *positions[2:]]
        (letter,) = await st.owner.fetch("select position, error from supervisor.dead_letter")
        assert tuple(letter) == (positions[1], f"skipped: ValueError: cannot apply {positions[1]}")
        assert await st.owner.fetchval("select count(*) from supervisor.skip_poison('view')") == 0


async def test_a_restart_retries_the_event(database: str) -> None:
    """Once the handler is corrected, the next run applies the event, and the record of it is deleted."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(5)
        handler = Seen(_is(2))
        actor = await st.play(handler)
        with pytest.raises(ProjectionHalted):
            await actor.ended()
        handler.refuse = lambda _: False
        actor.go_on()
        await st.applied_upto((await appended(st))[-1])
        assert await seen(st) == await appended(st)
        row = await st.checkpoint()
        assert (row["poison"], row["error"]) == (None, None)


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03", "53300"])
async def test_a_transient_error_is_no_poison(database: str, sqlstate: str) -> None:
    """After a deadlock or similar the whole batch is retried, never split, however the handler wraps the error."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(100)
        calls = 0
        sizes = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            nonlocal calls
            calls += 1
            sizes.append(len(events))
            if calls <= 5:
                try:
                    await ctx.tx.execute(f"do $$ begin raise 'no' using errcode = '{sqlstate}'; end $$")
                except asyncpg.PostgresError as error:
                    raise RuntimeError("wrapped") from error

        await st.play(handler)
        await st.applied_upto((await appended(st))[-1])
        assert sizes == [100] * 6
        assert (await st.checkpoint())["applied"] == 100


async def test_a_transient_error_that_persists_ends_the_run(database: str) -> None:
    """After ten retries the restart policy decides; the event is no poison."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append("s")

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.tx.execute("do $$ begin raise 'disk full' using errcode = '53100'; end $$")

        actor = await st.play(handler)
        with pytest.raises(asyncpg.DiskFullError):
            await actor.ended()
        assert (await st.checkpoint())["poison"] is None


async def test_a_terminated_work_session_costs_one_batch(database: str) -> None:
    """After pg_terminate_backend on the session the whole batch is run again, and applied once."""
    async with projection_harness(database) as st:
        await st.append_many(50)
        sizes = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            sizes.append(len(events))
            await ctx.tx.executemany(
                "insert into seen (name, position) values ('view', $1)", [(event.position,) for event in events]
            )
            if len(sizes) == 1:
                await _terminate(st, ctx.tx.get_server_pid())
                await ctx.tx.execute("select 1")

        await st.play(handler)
        await st.applied_upto((await appended(st))[-1])
        assert sizes == [50, 50]
        assert await seen(st) == await appended(st)
        assert st.entries.of("projection.poison") == []


async def test_a_handler_that_always_ends_its_connection_is_found(database: str) -> None:
    """An event that makes the server end the session again and again becomes poison."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.append_many(4)
        positions = await appended(st)

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            for event in events:
                if event.data["n"] == 3:
                    await _terminate(st, ctx.tx.get_server_pid())
                await ctx.tx.execute("insert into seen (name, position) values ('view', $1)", event.position)

        await st.play(handler, poison="dead-letter")
        await st.applied_upto(positions[-1])
        assert await seen(st) == [positions[0], positions[1], positions[3]]


async def test_a_commit_whose_answer_is_lost_is_not_repeated(postgres: Postgres) -> None:
    """The session ends between the COMMIT and its answer: the checkpoint shows that it was committed."""
    postgres.execute("alter system set synchronous_commit = local")
    async with projection_harness(postgres.dsn()) as st:
        postgres.set_config("synchronous_standby_names", "nobody")
        await st.append_many(30)
        sizes = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            sizes.append(len(events))
            rows = [(event.position,) for event in events]
            await ctx.tx.executemany("insert into seen (name, position) values ('view', $1)", rows)
            if len(sizes) == 1:
                await ctx.tx.execute("set local synchronous_commit = remote_write")

        await st.play(handler)
        waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep'"

        async def is_waiting() -> Any:
            return await st.owner.fetchval(waiting)

        await st.until(is_waiting)
        await st.owner.execute(f"select pg_terminate_backend(({waiting}))")
        last = await st.append("s")
        await st.applied_upto(last)
        assert await seen(st) == await appended(st)
        assert sizes == [30, 1]
        assert st.entries.of("projection.moved") == []


async def test_an_outage_ends_the_run_and_is_no_failure(postgres: Postgres) -> None:
    """A server that goes away during a batch is an outage, not the handler's failure; afterwards nothing is missing."""
    async with projection_harness(postgres.dsn()) as st:
        await st.append_many(20)
        positions = await appended(st)
        gone = asyncio.Event()

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            rows = [(event.position,) for event in events]
            await ctx.tx.executemany("insert into seen (name, position) values ('view', $1)", rows)
            if not gone.is_set():
                await asyncio.to_thread(postgres.stop, "immediate")
                gone.set()
                await ctx.tx.execute("select 1")

        actor = await st.play(handler)
        assert actor.task is not None
        await asyncio.wait({actor.task}, timeout=30)
        error = actor.task.exception()
        assert error is not None
        assert await st.house.database.is_outage_error(error)
        await asyncio.to_thread(postgres.start)
        await st.house.up()
        actor.go_on()
        owner = await asyncpg.connect(postgres.dsn())

        async def is_through() -> bool:
            # The sequence has left out some numbers, as it does after a crash.
            return bool(await owner.fetchval("select position from supervisor.checkpoint") >= positions[-1])

        await st.until(is_through)
        assert [row["position"] for row in await owner.fetch("select position from seen order by id")] == positions
        await owner.close()


async def test_a_lost_connection_loses_nothing(postgres: Postgres) -> None:
    """Answers are lost, then the connection: the next run continues exactly where the database says."""
    with Proxy(postgres.port) as proxy:
        async with projection_harness(postgres.dsn(port=proxy.port)) as st:
            owner = await asyncpg.connect(postgres.dsn())
            handler = Seen()
            actor = await st.play(handler, batch=10)
            for _ in range(5):
                await owner.execute("select supervisor.append('s', 't') from generate_series(1, 300)")
                st.append_signal.notify()
                await st.until(lambda: len(handler.positions) % 300 > 20)
                proxy.freeze("to_client")
                await asyncio.sleep(0.02)
                proxy.cut()
                proxy.thaw()
                assert actor.task is not None
                async with asyncio.timeout(30):
                    await asyncio.gather(actor.task, return_exceptions=True)
                await st.house.up()
                actor.go_on()
                count = await owner.fetchval("select count(*) from supervisor.event")

                async def is_through(count: int = count) -> bool:
                    return bool(await owner.fetchval("select count(*) from seen") >= count)

                await st.until(is_through)
            applied = [row["position"] for row in await owner.fetch("select position from seen order by id")]
            events = [row["position"] for row in await owner.fetch("select position from supervisor.event order by 1")]
            assert applied == events
            await owner.close()


async def test_nothing_commits_under_a_lost_lease(database: str) -> None:
    """The epoch grows while the handler works: the new holder waits for it, and whatever comes later fails."""
    async with projection_harness(database) as st:
        first = await st.append("s")
        goes_on = asyncio.Event()
        calls = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            calls.append([event.position for event in events])
            await ctx.tx.execute("insert into seen (name, position) values ('view', $1)", events[0].position)
            await goes_on.wait()

        actor = await st.play(handler)
        await st.until(lambda: calls)
        other = await asyncpg.connect(database)
        bumping = asyncio.create_task(other.execute("update supervisor.lease set epoch = epoch + 1"))
        await asyncio.sleep(0.05)
        assert not bumping.done()
        goes_on.set()
        await bumping
        await st.applied_upto(first)
        await st.append("s")
        with pytest.raises(LeaseLost):
            await actor.ended()
        assert actor.lease_handle.status is LeaseStatus.LOST
        assert actor.lease_handle.reasons != []
        assert await seen(st) == [first]
        await other.close()


async def test_nothing_begins_under_a_lease_that_is_known_to_be_lost(database: str) -> None:
    """The node knows that it is lost: the run ends without a statement."""
    async with projection_harness(database) as st:
        handler = Seen()
        actor = await st.play(handler)
        await st.applied_upto(await st.append("s"))
        actor.lease_handle.lose()
        await st.append("s")
        with pytest.raises(LeaseLost):
            await actor.ended()
        assert len(handler.positions) == 1


async def test_a_batch_that_takes_too_long_counts_as_a_failure(database: str) -> None:
    """`stall_timeout` cancels one call, logs its stack, and finds the event that takes for ever."""
    async with projection_harness(database) as st:
        await st.append_many(8)
        positions = await appended(st)
        sizes = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            sizes.append(len(events))
            for event in events:
                if event.data["n"] == 5:
                    await asyncio.get_running_loop().create_future()
                await ctx.tx.execute("insert into seen (name, position) values ('view', $1)", event.position)

        await st.play(handler, stall_timeout_s=0.1, poison="dead-letter")
        await st.applied_upto(positions[-1])
        assert await seen(st) == positions[:4] + positions[5:]
        (letter,) = await st.owner.fetch("select position, error from supervisor.dead_letter")
        assert tuple(letter) == (positions[4], "StallTimeout: took longer than 0.1 s")
        assert ".handler" in st.entries.of("worker.stalled")[0].fields["stack"]


async def test_a_call_that_swallows_its_cancellation_has_stalled_too(database: str) -> None:
    """If the handler returns normally after the cancellation, nothing of that call is kept."""
    async with projection_harness(database) as st:
        position = await st.append("s")
        calls = 0

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            nonlocal calls
            calls += 1
            await ctx.tx.execute("insert into seen (name, position) values ('view', $1)", calls)
            if calls == 1:
                for _turn in range(3):
                    try:
                        await asyncio.get_running_loop().create_future()
                    except asyncio.CancelledError:
                        continue

        actor = await st.play(handler, stall_timeout_s=0.1)
        await st.applied_upto(position)
        assert await seen(st) == [2]
        await actor.end()


async def test_a_stop_lets_the_batch_end_and_begins_no_other(database: str) -> None:
    """The batch in progress is committed; the rest waits for the next run."""
    async with projection_harness(database) as st:
        await st.append_many(30)
        positions = await appended(st)
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            begun.set()
            await goes_on.wait()
            for event in events:
                await ctx.tx.execute("insert into seen (name, position) values ('view', $1)", event.position)

        actor = await st.play(handler, batch=10)
        await begun.wait()
        assert actor.stop.in_flight == 1
        assert actor.stop.is_cooperative
        actor.stop.set()
        goes_on.set()
        await actor.ended()
        assert await seen(st) == positions[:10]


async def test_an_idle_projection_stops_at_once(database: str) -> None:
    """The run ends by itself."""
    async with projection_harness(database) as st:
        actor = await st.play(Seen())
        await st.applied_upto(await st.append("s"))
        began = asyncio.get_running_loop().time()
        await actor.end()
        took_s = asyncio.get_running_loop().time() - began
        assert took_s < 1 + await slack_s(database)


async def test_a_cancelled_batch_is_rolled_back_without_waiting(database: str) -> None:
    """A run that is cancelled during a batch leaves nothing behind, neither rows nor a session in a transaction."""
    async with projection_harness(database) as st:
        await st.append("s")
        begun = asyncio.Event()

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.tx.execute("insert into seen (name) values ('half')")
            begun.set()
            await ctx.tx.execute("select pg_sleep(30)")

        actor = await st.play(handler)
        await begun.wait()
        assert actor.task is not None
        actor.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await actor.ended()

        async def is_gone() -> bool:
            busy = "select count(*) from pg_stat_activity where query like '%pg_sleep(30)%' and pid <> pg_backend_pid()"
            return bool(await st.owner.fetchval(busy) == 0)

        await st.until(is_gone)
        assert await st.owner.fetchval("select count(*) from seen") == 0
        assert (await st.checkpoint())["position"] == 0


async def test_a_cancelled_batch_does_not_wait_for_a_frozen_server(postgres: Postgres) -> None:
    """The server does not answer: the run ends at once all the same, because its lease has to be released."""
    with Proxy(postgres.port) as proxy:
        async with projection_harness(postgres.dsn(port=proxy.port)) as st:
            await st.append("s")
            begun = asyncio.Event()

            async def handler(ctx: Any, _: Sequence[Any]) -> None:
                await ctx.tx.execute("select 1")
                proxy.freeze()
                begun.set()
                await ctx.tx.execute("select 2")

            actor = await st.play(handler)
            await begun.wait()
            assert actor.task is not None
            actor.task.cancel()
            await asyncio.wait({actor.task}, timeout=1.5 + await slack_s(postgres.dsn()))
            assert actor.task.done()
            proxy.thaw()
