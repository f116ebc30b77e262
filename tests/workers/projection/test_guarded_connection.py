"""`ctx.tx`: what a handler may do with it, and what follows when it does anything else."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from support.database_fixture import FastClock
from support.projection_harness import Seen, appended, projection_harness, seen

from supervisor.errors import SupervisorError, TransactionMisused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from support.projection_harness import Actor, ProjectionHarness


async def _fails(
    st: ProjectionHarness, handler: Callable[[Any, Sequence[Any]], Awaitable[None]]
) -> tuple[Actor, BaseException]:
    """Give a handler one event, and return the error of its run; check that the checkpoint has not moved."""
    await st.append("s")
    actor = await st.play(handler)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        await actor.ended()
    assert (await st.checkpoint())["position"] == 0
    return actor, caught.value


async def test_everything_that_asyncpg_offers_works_in_it(database: str) -> None:
    """Statements of every kind, cursors, COPY and savepoints are committed with the checkpoint."""
    async with projection_harness(database) as st:

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            tx = ctx.tx
            await tx.execute("create table t (a int)")
            await tx.executemany("insert into t values ($1)", [(1,), (2,)])
            assert [row["a"] for row in await tx.fetch("select a from t order by a")] == [1, 2]
            assert (await tx.fetchrow("select a from t where a = $1", 2))["a"] == 2
            assert await tx.fetchval("select count(*) from t") == 2
            assert len(await tx.fetchmany("insert into t values ($1) returning a", [(3,), (4,)])) == 2
            statement = await tx.prepare("select a from t where a > $1")
            assert len(await statement.fetch(2)) == 2
            assert [row["a"] async for row in tx.cursor("select a from t order by a")] == [1, 2, 3, 4]
            assert await tx.copy_records_to_table("t", records=[(5,)]) == "COPY 1"
            async with tx.transaction():
                await tx.execute("insert into t values (6)")
            with contextlib.suppress(ZeroDivisionError):
                async with tx.transaction():
                    await tx.execute("insert into t values (7)")
                    raise ZeroDivisionError
            await tx.execute("savepoint a; insert into t values (8)")
            await tx.execute("rollback to savepoint a")
            assert tx.is_in_transaction()
            assert tx.get_server_pid() > 0
            assert not tx.is_closed()
            assert await tx.fetchval("show transaction_isolation") == "read committed"
            assert len(events) == 1

        position = await st.append("s")
        await st.play(handler)
        await st.applied_upto(position)
        assert [row["a"] for row in await st.owner.fetch("select a from t order by a")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "statement",
    ["commit", "  ROLLBACK", "/* a /* nested */ comment */ end", "-- a\n;abort", "begin", "start transaction",
     "prepare transaction 'x'", "rollback and chain"],
)  # fmt: skip
async def test_a_statement_that_would_end_the_transaction_is_refused(database: str, statement: str) -> None:
    """No statement is sent, the checkpoint does not move, and the error says what to write instead."""
    async with projection_harness(database) as st:

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.tx.execute("insert into seen (name) values ('half')")
            await ctx.tx.execute(statement)

        _, error = await _fails(st, handler)
        assert isinstance(error, TransactionMisused)
        assert "async with ctx.tx.transaction()" in str(error)
        assert await st.owner.fetchval("select count(*) from seen") == 0


async def test_every_way_to_send_a_statement_is_guarded(database: str) -> None:
    """Prepared statements, arguments, cursors and the connection's own methods are refused too."""
    async with projection_harness(database) as st:
        refused: list[str] = []

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            tx = ctx.tx
            attempts: tuple[Callable[[], Awaitable[Any]], ...] = (
                lambda: tx.prepare("commit"), lambda: tx.fetch("commit"), lambda: tx.fetchrow("commit"),
                lambda: tx.fetchval("commit"), lambda: tx.executemany("commit", [()]),
                lambda: tx.fetchmany("commit", [()]),
            )  # fmt: skip
            for attempt in attempts:
                with pytest.raises(TransactionMisused):
                    await attempt()
                refused.append("call")
            for name in ("close", "terminate", "reset"):
                with pytest.raises(TransactionMisused):
                    getattr(tx, name)
                refused.append(name)
            with pytest.raises(TransactionMisused):
                tx.cursor("commit")

        position = await st.append("s")
        await st.play(handler)
        await st.applied_upto(position)
        assert len(refused) == 9


@pytest.mark.parametrize(
    "text",
    ["insert into seen (name) values ('behind'); commit", "insert into seen (name) values ('behind'); commit; begin",
     "insert into seen (name) values ('behind'); commit and chain"],
)  # fmt: skip
async def test_a_hidden_commit_is_found(database: str, text: str) -> None:
    """A COMMIT hidden in a longer text: what it committed stays, the checkpoint does not move, nothing is split."""
    async with projection_harness(database) as st:
        calls: list[int] = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            calls.append(len(events))
            await ctx.tx.execute(text)

        await st.append_many(3)
        _, error = await _fails(st, handler)
        assert isinstance(error, TransactionMisused)
        assert "ended the transaction" in str(error)
        assert calls == [4]


async def test_a_transaction_kept_after_the_return_raises(database: str) -> None:
    """The connection, its statements, cursors and transactions, and `ctx.tx` itself raise after the call."""
    async with projection_harness(database) as st:
        kept: dict[str, Any] = {}

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            if not kept:
                kept["ctx"], kept["tx"] = ctx, ctx.tx
                kept["statement"] = await ctx.tx.prepare("insert into seen (name) values ('late')")
                kept["transaction"] = ctx.tx.transaction()
                kept["cursor"] = ctx.tx.cursor("select 1")
                kept["copy"] = ctx.tx.copy_records_to_table
                kept["pid"] = ctx.tx.get_server_pid
                kept["execute"] = ctx.tx.execute

        first = await st.append("s")
        await st.play(handler)
        await st.applied_upto(first)
        await st.applied_upto(await st.append("s"))
        uses: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: kept["tx"].execute("insert into seen (name) values ('late')"),
            lambda: kept["execute"]("insert into seen (name) values ('late')"),
            lambda: kept["copy"]("seen", records=[(1, "late")]),
        )
        for use in uses:
            with pytest.raises(TransactionMisused, match="ends with its return"):
                await use()
        with pytest.raises(TransactionMisused):
            kept["pid"]()
        with pytest.raises(SupervisorError, match=r"no ctx\.tx now"):
            _ = kept["ctx"].tx
        for thing in (kept["statement"].fetch, kept["transaction"].start, lambda: kept["cursor"]):
            with pytest.raises(asyncpg.InterfaceError, match="released"):
                await thing()
        assert await st.owner.fetchval("select count(*) from seen") == 0


async def test_a_kept_transaction_does_not_work_in_the_next_batch(database: str) -> None:
    """That holds even if both calls use the same connection."""
    async with projection_harness(database) as st:
        kept: list[Any] = []
        refused: list[str] = []

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            for use in kept:
                with pytest.raises((asyncpg.InterfaceError, SupervisorError)) as caught:
                    await use()
                refused.append(type(caught.value).__name__)
            statement = await ctx.tx.prepare("insert into seen (name) values ('stray')")
            execute = partial(ctx.tx.execute, "insert into seen (name) values ('stray')")
            kept[:] = [statement.fetch, ctx.tx.transaction().start, execute, ctx.tx.copy_records_to_table]

        await st.append_many(3)
        await st.play(handler, batch=1)
        await st.applied_upto((await appended(st))[-1])
        assert len(refused) == 8
        assert await st.owner.fetchval("select count(*) from seen") == 0


async def test_a_task_that_still_uses_it_fails_the_batch(database: str) -> None:
    """A statement still in progress at the handler's return: the batch is rolled back, and the error says why."""
    async with projection_harness(database) as st:
        tasks: list[asyncio.Task[Any]] = []

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.tx.execute("insert into seen (name) values ('half')")
            tasks.append(asyncio.create_task(ctx.tx.execute("select pg_sleep(30)")))
            await asyncio.sleep(0.05)

        _, error = await _fails(st, handler)
        assert isinstance(error, TransactionMisused)
        assert "still uses ctx.tx" in str(error)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await tasks[0]
        assert await st.owner.fetchval("select count(*) from seen") == 0


async def test_a_task_left_behind_does_not_reach_the_next_batch(database: str) -> None:
    """A task of one call that uses `ctx.tx` during the next call gets errors, and writes nothing."""
    async with projection_harness(database) as st:
        tasks: list[asyncio.Task[Any]] = []
        goes_on, written = asyncio.Event(), asyncio.Event()

        async def straggler(ctx: Any) -> None:
            await goes_on.wait()
            try:
                await ctx.tx.execute("insert into seen (name) values ('stray')")
            finally:
                written.set()

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(straggler(ctx)))
            else:
                goes_on.set()
                await written.wait()

        await st.play(handler)
        await st.applied_upto(await st.append("s"))
        await st.applied_upto(await st.append("s"))
        with pytest.raises(SupervisorError):
            await tasks[0]
        assert await st.owner.fetchval("select count(*) from seen") == 0


async def test_a_swallowed_error_does_not_commit(database: str) -> None:
    """A statement failed and the handler returned as if not: the batch fails like any other, down to the event."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.owner.execute("create table even (n int check (n % 2 = 0))")
        calls: list[int] = []

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            calls.append(len(events))
            for event in events:
                with contextlib.suppress(asyncpg.PostgresError):
                    await ctx.tx.execute("insert into even values ($1)", 1 if event.data["n"] == 3 else 2)

        await st.append_many(4)
        positions = await appended(st)
        await st.play(handler, poison="dead-letter")
        await st.applied_upto(positions[-1])
        letters = await st.owner.fetch("select position, error from supervisor.dead_letter")
        assert [row["position"] for row in letters] == [positions[2]]
        assert "returned as if it had not" in letters[0]["error"]
        assert await st.owner.fetchval("select count(*) from even") == 3


async def test_a_constraint_that_is_checked_at_commit_is_the_handlers_failure(database: str) -> None:
    """An error of COMMIT counts as the batch's failure: the poison event is found, the rest is applied."""
    async with projection_harness(database, clock=FastClock()) as st:
        await st.owner.execute(
            "create table parent (id int primary key);"
            "create table child (parent int references parent deferrable initially deferred);"
            "insert into parent values (1), (2), (4), (5)"
        )

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            for event in events:
                await ctx.tx.execute("insert into child values ($1)", event.data["n"])

        await st.append_many(5)
        positions = await appended(st)
        await st.play(handler, poison="dead-letter")
        await st.applied_upto(positions[-1])
        assert await st.owner.fetchval("select array_agg(parent order by parent) from child") == [1, 2, 4, 5]
        assert await st.owner.fetchval("select array_agg(position) from supervisor.dead_letter") == [positions[2]]


async def test_a_savepoint_left_open_is_committed_with_the_rest(database: str) -> None:
    """What a handler wrote in a nested transaction that it did not end is kept."""
    async with projection_harness(database) as st:

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.tx.transaction().start()
            await ctx.tx.execute("insert into seen (name, position) values ('view', 1)")

        await st.play(handler)
        await st.applied_upto(await st.append("s"))
        await st.applied_upto(await st.append("s"))
        assert await seen(st) == [1, 1]


async def test_events_may_be_appended_in_the_same_transaction(database: str) -> None:
    """A projection may append events: they commit with its checkpoint, and are read later."""
    from supervisor import append

    async with projection_harness(database) as st:
        handler = Seen()

        async def chain(ctx: Any, events: Sequence[Any]) -> None:
            await handler(ctx, events)
            for event in events:
                if event.data["n"] < 5:
                    await append(ctx.tx, event.stream, "next", {"n": event.data["n"] + 1})

        await st.play(chain)
        await st.append("s", n=0)
        await st.until(lambda: len(handler.positions) == 6)
        await st.applied_upto(handler.positions[-1])
        assert await seen(st) == await appended(st)


async def test_the_error_says_that_the_server_ended_an_idle_transaction(database: str) -> None:
    """It is no poison: the run ends with an error about waiting while ctx.tx is open."""
    async with projection_harness(database) as st:

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.tx.execute("set local idle_in_transaction_session_timeout = '20ms'")
            while not ctx.tx.is_closed():  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.005)
            await ctx.tx.execute("select 1")

        _, error = await _fails(st, handler)
        assert isinstance(error, TransactionMisused)
        assert "for 60 s nothing was asked in it (25P03)" in str(error)


@pytest.mark.parametrize(
    ("sql", "says"),
    [("reset all", "reset the settings of ctx.tx"), ("set transaction read only", "read only")],
)
async def test_a_reset_of_the_settings_is_a_misuse(database: str, sql: str, says: str) -> None:
    """The run ends with an error about what the handler did; no event is poison, and nothing is kept."""
    async with projection_harness(database) as st:

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            await Seen()(ctx, events)
            await ctx.tx.execute(sql)

        _, error = await _fails(st, handler)
        assert isinstance(error, TransactionMisused)
        assert says in str(error)
        assert await seen(st) == []
        assert st.entries.of("projection.batch_failed") == []


async def test_a_write_after_read_only_is_no_poison(database: str) -> None:
    """The handler or a standby is the cause, not the event: the run ends with the server's own error."""
    async with projection_harness(database) as st:

        async def handler(ctx: Any, events: Sequence[Any]) -> None:
            await ctx.tx.execute("set transaction read only")
            await Seen()(ctx, events)

        _, error = await _fails(st, handler)
        assert isinstance(error, asyncpg.ReadOnlySQLTransactionError)


@pytest.mark.parametrize("local", ["", "local"])
@pytest.mark.parametrize("what", ["role", "session authorization"])
async def test_a_handler_may_take_another_role(database: str, local: str, what: str) -> None:
    """Row-level security needs that: the checkpoint is moved all the same, and no other batch gets the role."""
    async with projection_harness(database, pool_max=1) as st:
        role = f"reader_{uuid4().hex}"
        await st.owner.execute(f"create role {role}; grant insert on seen to {role}")
        await st.owner.execute(f"grant usage on sequence seen_id_seq to {role}")
        try:
            users: list[str] = []

            async def handler(ctx: Any, events: Sequence[Any]) -> None:
                users.append(await ctx.tx.fetchval("select current_user"))
                await ctx.tx.execute(f"set {local} {what} {role}")
                await Seen()(ctx, events)

            actor = await st.play(handler)
            for _ in range(2):
                await st.applied_upto(await st.append("s"))
            assert await seen(st) == await appended(st)
            assert role not in users
            assert len(users) == 2
            await actor.end()
        finally:
            await st.owner.execute(f"drop owned by {role}; drop role {role}")


async def test_the_entry_names_who_holds_the_connections(database: str) -> None:
    """Handlers that use ctx.db beside ctx.tx wait for each other: the entry names the projection that holds them."""
    async with projection_harness(database, clock=FastClock(), pool_max=1) as st:

        async def handler(ctx: Any, _: Sequence[Any]) -> None:
            await ctx.db.execute("select 1")

        await st.append("s")
        actor = await st.play(handler)
        told = await st.entries.wait_for("pool.exhausted")
        assert "view has 1 of them" in told.fields["reason"]
        assert actor.task is not None
        actor.task.cancel()
        await asyncio.wait({actor.task})
