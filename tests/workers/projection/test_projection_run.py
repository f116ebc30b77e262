"""A projection on a real database: which events it is given, and when."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import asyncpg
from support.projection_harness import Seen, appended, projection_harness, seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.postgres import Postgres


class Length:
    """What a node's snapshot says of the log."""

    def __init__(self, head: int) -> None:
        self.head = head


async def test_gives_every_event_once_and_in_order(database: str) -> None:
    """Events that exist and events that come later are applied once, in order, and the checkpoint shows it."""
    async with projection_harness(database) as st:
        await st.append_many(1234)
        handler = Seen()
        actor = await st.play(handler)
        await st.until(lambda: len(handler.positions) == 1234)
        last = 0
        for n in range(5):
            last = await st.append("late", n=n)
        await st.applied_upto(last)
        await actor.end()
        assert await seen(st) == await appended(st)
        row = await st.checkpoint()
        assert (row["position"], row["applied"]) == (last, 1239)
        assert max(handler.batches) == 500


async def test_an_event_has_what_was_appended(database: str) -> None:
    """Position, stream, type, data and time of the event are those of its row."""
    async with projection_harness(database) as st:
        given: list[Any] = []

        async def handler(_: Any, events: Sequence[Any]) -> None:
            given.extend(events)

        position = await st.append("orders-1", "placed", total=12.5, lines=[1, {"é": None}])
        await st.play(handler)
        await st.applied_upto(position)
        (event,) = given
        assert (event.position, event.stream, event.type) == (position, "orders-1", "placed")
        assert event.data == {"total": 12.5, "lines": [1, {"é": None}]}
        assert event.at == await st.owner.fetchval("select at from supervisor.event")


async def test_continues_at_the_checkpoint(database: str) -> None:
    """A later run, under another epoch, begins after what was applied."""
    async with projection_harness(database) as st:
        await st.append_many(10)
        actor = await st.play(Seen())
        await st.applied_upto((await appended(st))[-1])
        await actor.end()
        await st.append_many(7)
        await actor.start()
        await st.applied_upto((await appended(st))[-1])
        assert await seen(st) == await appended(st)


async def test_streams_are_chosen_by_globs(database: str) -> None:
    """Only events of matching streams are given, also if a glob has characters that are special in LIKE."""
    async with projection_harness(database) as st:
        handler = Seen()
        await st.play(handler, streams=("order-*", "a_b", "10%", "x?z", r"back\slash"))
        given = [await st.append(stream) for stream in ("order-1", "order-", "a_b", "10%", "xyz", r"back\slash")]
        for stream in ("orders-1", "my-order-1", "axb", "100", "xz", "xyyz", r"back\\slash", "Order-1"):
            await st.append(stream)
        last = await st.append("order-last")
        await st.applied_upto(last)
        assert handler.positions == [*given, last]


async def test_rare_events_are_found_page_by_page(database: str) -> None:
    """No statement covers more positions than a page, and the position moves past events of other streams."""
    async with projection_harness(database) as st:
        await st.append_many(45_000, "foreign")
        wanted = await st.append("rare")
        handler = Seen()
        actor = await st.play(handler, streams=("rare",))
        await st.applied_upto(wanted)
        assert handler.positions == [wanted]
        await actor.end()
        # Written on the way, such that another node need not begin from the start.
        await st.append_many(10_000, "foreign")
        await actor.start()
        await st.applied_upto(wanted + 10_000)
        assert (await st.checkpoint())["applied"] == 1


async def test_a_snapshot_wakes_it_without_a_notification(database: str) -> None:
    """An append without a notification is applied once a snapshot shows a longer log."""
    async with projection_harness(database) as st:
        handler = Seen()
        await st.play(handler)
        first = await st.append("s")
        await st.applied_upto(first)
        await st.owner.execute("set supervisor.notify = off")
        second = await st.append("s")
        st.append_signal.update_head(Length(second))
        await st.applied_upto(second)
        assert handler.positions == [first, second]


async def test_it_continues_after_a_rollback_without_a_notification(database: str) -> None:
    """Events behind an open transaction are held back, and applied soon after its rollback, which does not notify."""
    async with projection_harness(database) as st:
        handler = Seen()
        actor = await st.play(handler)
        await st.applied_upto(await st.append("s"))
        other = await asyncpg.connect(database)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("select supervisor.append('s', 'never', '{}')")
        behind = await st.append("s")
        # It has looked, and seen that something is held back.
        await st.until(lambda: actor.work.lag is not None and actor.work.lag.events > 0)
        assert behind not in handler.positions
        await transaction.rollback()
        await st.until(lambda: behind in handler.positions)
        await st.applied_upto(behind)
        await other.close()
        assert await seen(st) == await appended(st)


async def test_a_prepared_transaction_is_waited_for(postgres: Postgres) -> None:
    """An append in a prepared transaction holds back what comes after it, for as long as it takes."""
    postgres.set_config("max_prepared_transactions", "5")
    postgres.restart()
    async with projection_harness(postgres.dsn()) as st:
        handler = Seen()
        await st.play(handler)
        await st.owner.execute("set supervisor.notify = off")
        await st.owner.execute("begin; select supervisor.append('s', 'prepared', '{}'); prepare transaction 'p'")
        last = await st.append("s")
        st.append_signal.update_head(Length(last))
        await st.until(lambda: st.append_signal.head == last and st.house.count("idle") > 0)
        assert handler.positions == []
        await st.owner.execute("commit prepared 'p'")
        await st.applied_upto(last)
        assert handler.positions == await appended(st)
        assert len(handler.positions) == 2


async def test_a_long_transaction_that_has_not_appended_holds_nothing_back(database: str) -> None:
    """Only transactions that have appended count, however old others are."""
    async with projection_harness(database) as st:
        other = await asyncpg.connect(database)
        async with other.transaction(isolation="repeatable_read"):
            await other.execute("create table long_running (n int)")
            handler = Seen()
            await st.play(handler)
            await st.applied_upto(await st.append("s"))
            assert handler.positions == await appended(st)
        await other.close()


async def test_the_databases_default_isolation_changes_nothing(database: str) -> None:
    """Where every transaction is SERIALIZABLE by default, events are still read exactly and applied once."""
    async with projection_harness(database) as st:
        await st.owner.execute(
            "do $$ begin execute format('alter database %I set default_transaction_isolation = serializable',"
            " current_database()); end $$"
        )
        async with projection_harness(database) as strict:
            handler = Seen()
            await strict.play(handler)
            await asyncio.gather(*(_write(database, 25) for _ in range(6)))
            positions = await appended(strict)
            await strict.applied_upto(positions[-1])
            assert await seen(strict) == positions
            assert await strict.owner.fetchval("show transaction_isolation") == "serializable"


async def test_an_idle_projection_costs_no_statements(postgres: Postgres) -> None:
    """Once it has caught up, no statement is sent until the next append."""
    postgres.set_config("log_statement", "all")
    async with projection_harness(postgres.dsn()) as st:
        await st.play(Seen())
        await st.applied_upto(await st.append("s"))
        await st.until(lambda: st.house.count("idle") == st.house.count("size"))
        before = _statements(postgres)
        assert before > 5
        await asyncio.sleep(0.5)
        assert _statements(postgres) == before
        st.append_signal.update_head(Length(0))
        await asyncio.sleep(0.1)
        assert _statements(postgres) == before


async def test_a_backlog_is_read_with_one_horizon(postgres: Postgres) -> None:
    """Events at or below a horizon never change, so it is not asked for again."""
    async with projection_harness(postgres.dsn()) as st:
        await st.append_many(8_000)
        postgres.set_config("log_statement", "all")
        await st.play(Seen(), batch=100)
        await st.applied_upto((await appended(st))[-1])
        assert 1 <= len(re.findall(r"pgsupervisor test LOG:.*\n.*supervisor\.horizon", _text(postgres))) <= 2


async def test_nothing_is_lost_or_doubled_with_many_writers(database: str) -> None:
    """With savepoints, rollbacks and pauses every committed event is applied once and in order, and no other."""
    async with projection_harness(database) as st:
        await st.play(Seen(), batch=50)
        await asyncio.gather(*(_write(database, 40) for _ in range(12)))
        positions = await appended(st)
        await st.applied_upto(positions[-1])
        assert await seen(st) == positions


async def test_two_projections_do_not_disturb_each_other(database: str) -> None:
    """Each has its own checkpoint and its own speed."""
    async with projection_harness(database) as st:
        await st.append_many(300)
        await st.play(Seen(), name="fast")
        await st.play(Seen(), name="slow", batch=7)
        last = (await appended(st))[-1]
        await st.applied_upto(last, name="fast")
        await st.applied_upto(last, name="slow")
        assert await seen(st, "fast") == await seen(st, "slow") == await appended(st)


async def test_many_projections_share_a_small_pool(database: str) -> None:
    """With more projections than connections each gets one in turn, also while all have a backlog."""
    async with projection_harness(database, pool_max=2) as st:
        await st.append_many(2_000)
        names = [f"view{n}" for n in range(9)]
        for name in names:
            await st.play(Seen(), name=name, batch=20)
        last = (await appended(st))[-1]
        for name in names:
            await st.applied_upto(last, name=name)
            assert await seen(st, name) == await appended(st)


async def _write(dsn: str, rounds: int) -> None:
    """Append in transactions of all kinds."""
    connection = await asyncpg.connect(dsn, server_settings={"default_transaction_isolation": "read committed"})
    for n in range(rounds):
        transaction = connection.transaction()
        await transaction.start()
        for m in range(n % 4):
            savepoint = connection.transaction()
            await savepoint.start()
            await connection.execute("select supervisor.append($1, 't', '{}')", f"s{m}")
            await (savepoint.rollback() if (n + m) % 3 == 0 else savepoint.commit())
            await asyncio.sleep(0.002 * (n % 3))
        await (transaction.rollback() if n % 5 == 0 else transaction.commit())
    await connection.close()


def _text(postgres: Postgres) -> str:
    return postgres.log.read_text()


def _statements(postgres: Postgres) -> int:
    return len(re.findall(r"pgsupervisor test LOG:  (?:statement|execute)", _text(postgres)))
