"""Old events are deleted once every projection has passed them, by one node, and only if the configuration says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from support.clock import FakeClock, settle
from support.database_fixture import aside, database_fixture

from supervisor.database.schema.migrate import ensure_schema
from supervisor.events.pruning import EVERY_S, EventPruner

if TYPE_CHECKING:
    from support.database_fixture import DatabaseFixture
    from support.postgres import Postgres

_FILL = """
    select supervisor.reshard('view', 1);
    select supervisor.append('s', 't') from generate_series(1, 5);
    update supervisor.event set at = at - interval '1 day' where position <= 5;
    update supervisor.checkpoint set position = 4;
"""


class Minutes:
    """A pruner on a clock that the test owns."""

    def __init__(self, house: DatabaseFixture, keep_s: float) -> None:
        self.keep_s = keep_s
        self.house = house
        self.clock = FakeClock()
        self.pruner = EventPruner(house.database, keep_s=lambda: self.keep_s, clock=self.clock, tasks=house.tasks)
        self.pruner.start()

    async def pass_one(self) -> None:
        """Let one minute pass, and what is done in it end."""
        await self.clock.next_sleep()
        await self.clock.jump(EVERY_S)
        async with asyncio.timeout(30):
            while not self.clock.sleepers:  # noqa: ASYNC110 - it sleeps again when it is done
                await asyncio.sleep(0.002)

    async def left(self) -> list[Any]:
        """Return the positions of the events that are there."""
        rows = await self.house.view().fetch("select position from supervisor.event order by position")
        return [row["position"] - 1 for row in rows]


async def fill(house: DatabaseFixture) -> None:
    """Make five events, four of them old, three of them passed."""
    await ensure_schema(
        house.database,
        mode=lambda: "auto",
        is_needed=lambda: True,
        clock=house.database._clock,
        rng=house.database._rng,
    )
    await house.view().execute(_FILL)


async def test_only_old_events_that_were_passed_are_deleted(database: str) -> None:
    """Recent events, and events that a projection has not passed yet, stay."""
    async with database_fixture(database) as house:
        await fill(house)
        minutes = Minutes(house, keep_s=3600.0)
        await minutes.pass_one()
        assert await minutes.left() == [4, 5]
        assert [told.fields["events"] for told in house.entries.of("events.pruned")] == [3]
        await house.view().execute("update supervisor.checkpoint set position = 100")
        await minutes.pass_one()
        assert await minutes.left() == [5]


async def test_no_statement_is_sent_while_events_are_kept_for_ever(database: str) -> None:
    """With keep = 0 no statement is sent; a reload that changes it takes effect with the next minute."""
    async with database_fixture(database) as house:
        await fill(house)
        minutes = Minutes(house, keep_s=3600.0)
        minutes.keep_s = 0.0
        await minutes.pass_one()
        assert await minutes.left() == [1, 2, 3, 4, 5]
        minutes.keep_s = 3600.0
        await minutes.pass_one()
        assert await minutes.left() == [4, 5]


async def test_one_node_is_enough(database: str) -> None:
    """While another node prunes, this one does nothing."""
    async with database_fixture(database) as house:
        await fill(house)
        async with house.view().acquire() as other, other.transaction():
            await other.execute("select pg_advisory_xact_lock(1885827846, 0)")
            minutes = Minutes(house, keep_s=3600.0)
            await minutes.pass_one()
            assert await minutes.left() == [1, 2, 3, 4, 5]
        await minutes.pass_one()
        assert await minutes.left() == [4, 5]


async def test_a_failure_is_logged_and_retried(database: str, shared_postgres: Postgres) -> None:
    """An error is logged, and the next minute tries again."""
    async with database_fixture(database) as house:
        await fill(house)
        name = database.rpartition("/")[2]
        rename = "alter function supervisor.prune_events rename to prune_elsewhere"
        await aside(lambda: shared_postgres.execute(rename, dbname=name))
        minutes = Minutes(house, keep_s=3600.0)
        await minutes.pass_one()
        assert "UndefinedFunctionError" in house.entries.of("events.prune_failed")[0].fields["reason"]
        back = "alter function supervisor.prune_elsewhere rename to prune_events"
        await aside(lambda: shared_postgres.execute(back, dbname=name))
        await minutes.pass_one()
        assert await minutes.left() == [4, 5]


async def test_a_long_log_with_nothing_due_is_not_read(database: str) -> None:
    """The cost depends on the deleted events only, whether the first event is recent or the only old one."""
    async with database_fixture(database) as house:
        await fill(house)
        view = house.view()
        await view.execute("select supervisor.append('s', 't') from generate_series(1, 30000)")
        await view.execute("update supervisor.checkpoint set position = 30000")
        await view.execute("vacuum analyze supervisor.event")
        read = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'event'"
        for keep, pruned in (("2 days", 0), ("1 hour", 4)):
            async with view.acquire() as connection, connection.transaction():
                statement = f"select supervisor.prune_events('{keep}', 100)"
                assert await connection.fetchval(statement) == pruned
                assert await connection.fetchval(read) < 300


async def test_the_pruner_starts_only_if_events_are_not_kept_for_ever(database: str) -> None:
    """It starts once, as soon as it is asked for, and stops."""
    async with database_fixture(database) as house:
        minutes = Minutes(house, keep_s=0.0)
        await settle()
        assert not minutes.clock.sleepers
        minutes.keep_s = 3600.0
        for _ in range(2):
            minutes.pruner.start()
            await settle()
            assert len(minutes.clock.sleepers) == 1
        minutes.pruner.stop()
        await settle()
        assert not minutes.clock.sleepers
