"""The part of `status` about all nodes: from the database while it answers, else its last answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from support.clock import settle
from support.database_fixture import LIMIT_S, aside, database_fixture
from support.schema import connection, make_schema

from supervisor.clock import SystemClock
from supervisor.daemon.cluster_status import ClusterStatus, StatusQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from support.database_fixture import DatabaseFixture
    from support.postgres import Postgres

ALL = {"view": ["%"]}
GRANTS = """
    grant usage on schema supervisor to app;
    grant select on all tables in schema supervisor to app;
    grant execute on all functions in schema supervisor to app;
"""


class Site:
    """A database with the schema, and sessions that are nodes."""

    def __init__(self, dsn: str, admin: Any, house: DatabaseFixture, stack: contextlib.AsyncExitStack) -> None:
        self.admin = admin
        self.house = house
        self.cluster = ClusterStatus(clock=SystemClock(), tasks=house.tasks)
        self._dsn = dsn
        self._stack = stack

    async def session(self) -> Any:
        """A further connection, closed at the end."""
        return await self._stack.enter_async_context(connection(self._dsn))

    async def node(self, name: str, *leases: str, pid: int = 1) -> tuple[Any, int]:
        """A session that has joined under this name and holds these leases, and the node's number."""
        session = await self.session()
        number = await session.fetchval(
            "select supervisor.join_node(null, $1, 'box', $2, '1', now(), '{7}')", name, pid
        )
        rows = await session.fetch("select * from supervisor.lease_ids($1)", leases)
        ids, names = [row["id"] for row in rows], [row["name"] for row in rows]
        await session.execute("select supervisor.try_lease_locks($1)", ids)
        await session.execute(
            "select supervisor.advance_epochs($1, $2, pg_backend_pid(), $3, $4, $5)", ids, names, number, name, uuid4()
        )
        return session, number

    async def look(self, this: int | None = None, streams: dict[str, list[str]] | None = None) -> dict[str, Any]:
        """What `status` would show."""
        return await self.cluster.fetch(self.house.database, StatusQuery(this, None, streams or {}))

    async def look_until(self, is_so: Callable[[dict[str, Any]], bool], this: int | None = None) -> dict[str, Any]:
        """What `status` shows once this is so."""
        async with asyncio.timeout(LIMIT_S):
            while not is_so(seen := await self.look(this)):
                await settle()
        return seen

    async def lag(self, streams: dict[str, list[str]]) -> dict[str, Any]:
        """The first projection's row."""
        seen = await self.look(streams=streams)
        assert seen["cluster"]["problem"] is None
        row: dict[str, Any] = seen["projections"][0]
        return row


@contextlib.asynccontextmanager
async def site(dsn: str) -> AsyncIterator[Site]:
    """A database with the schema and a daemon's pool."""
    async with contextlib.AsyncExitStack() as stack:
        await make_schema(dsn)
        admin = await stack.enter_async_context(connection(dsn))
        house = await stack.enter_async_context(database_fixture(dsn, pool_max=2))
        yield Site(dsn, admin, house, stack)
        assert house.crashed == {}


async def test_names_every_living_node_and_what_it_holds(database: str) -> None:
    """Each node has its row, the one that answers is marked, and one whose session ended is gone with its leases."""
    async with site(database) as here:
        await here.node("shop", "mail", "view/1of2", pid=11)
        gone, _ = await here.node("shop", "view/2of2", pid=12)
        _, this = await here.node("till", pid=13)
        seen = await here.look(this)
        assert [(row["name"], row["host"], row["pid"], row["this"], row["wants"]) for row in seen["nodes"]] == [
            ("shop", "box", 11, False, 1),
            ("shop", "box", 12, False, 1),
            ("till", "box", 13, True, 1),
        ]
        assert [[lease["name"] for lease in row["leases"]] for row in seen["nodes"]] == [
            ["mail", "view/1of2"],
            ["view/2of2"],
            [],
        ]
        assert seen["nodes"][0]["leases"][0]["epoch"] == 1
        assert all(row["since"] and row["started"] for row in seen["nodes"])
        assert seen["cluster"]["problem"] is None
        await gone.close()
        seen = await here.look_until(lambda seen: len(seen["nodes"]) < 3, this)
        assert [row["pid"] for row in seen["nodes"]] == [11, 13]


async def test_a_lease_in_transit_is_shown_for_no_node(database: str) -> None:
    """A lock whose row still names the former holder is not shown as the new one's, with the old one's time."""
    async with site(database) as here:
        former, _ = await here.node("shop", "mail", pid=11)
        heir, _ = await here.node("shop", pid=12)
        lease = await here.admin.fetchval("select id from supervisor.lease")
        await former.execute("select pg_advisory_unlock(1885827842, $1)", lease)
        assert await heir.fetchval("select supervisor.try_lease_locks(array[$1::int])", lease) == [lease]
        assert [row["leases"] for row in (await here.look())["nodes"]] == [[], []]


async def test_a_locked_table_costs_a_second_and_no_more(database: str) -> None:
    """When the database does not answer, what was known last is shown with the reason; later it is fresh again."""
    async with site(database) as here:
        await here.node("shop", "mail")
        assert (await here.look())["cluster"]["problem"] is None
        async with here.admin.transaction():
            await here.admin.execute("lock table supervisor.node")
            began_s = time.monotonic()
            seen = await here.look()
            assert time.monotonic() - began_s < LIMIT_S / 2
        assert "did not answer within 1s" in seen["cluster"]["problem"]
        assert seen["cluster"]["age_s"] >= 0.9
        assert [row["name"] for row in seen["nodes"]] == ["shop"]
        seen = await here.look_until(lambda seen: seen["cluster"]["problem"] is None)
        assert seen["cluster"]["age_s"] < 0.9


async def test_a_pool_with_nothing_to_give_keeps_nothing_from_the_status(database: str) -> None:
    """Workers that keep every connection of the pool do not keep the status from asking, and it leaves none behind."""
    async with site(database) as here:
        await here.node("shop", "mail")
        view = here.house.view()
        sessions = "select count(*) from pg_stat_activity where datname = current_database()"
        async with view.acquire(), view.acquire():
            before = await here.admin.fetchval(sessions)
            for _ in range(3):
                seen = await here.look()
                assert seen["cluster"]["problem"] is None
                assert [row["name"] for row in seen["nodes"]] == ["shop"]
            async with asyncio.timeout(LIMIT_S):
                while await here.admin.fetchval(sessions) > before:
                    await settle()


async def test_there_are_no_rows_before_the_first_answer(database: str) -> None:
    """Where the database has not answered yet the nodes are not known, and the reason is shown."""
    async with site(database) as here:
        await here.node("shop", "mail")
        async with here.admin.transaction():
            await here.admin.execute("lock table supervisor.node")
            seen = await here.look()
        assert "did not answer within 1s" in seen["cluster"]["problem"]
        assert (seen["nodes"], seen["cluster"]["age_s"]) == ([], None)
        seen = await here.look_until(lambda seen: seen["cluster"]["problem"] is None)
        assert [row["name"] for row in seen["nodes"]] == ["shop"]


async def test_during_an_outage_it_shows_the_last_answer_at_once(postgres: Postgres) -> None:
    """While the database is unreachable nothing waits for it, and the nodes of the last answer are shown."""
    async with site(postgres.dsn()) as here:
        await here.node("shop", "mail")
        await here.look()
        await aside(postgres.stop, "immediate")
        await here.house.until(lambda: not here.house.database.is_up)
        began_s = time.monotonic()
        seen = await here.look()
        assert time.monotonic() - began_s < LIMIT_S / 2
        assert seen["cluster"]["problem"] == "the database is unreachable"
        assert [row["name"] for row in seen["nodes"]] == ["shop"]


async def test_a_role_that_owns_nothing_sees_all_of_it(postgres: Postgres) -> None:
    """The grants of a daemon that does not own the schema are enough for the whole answer."""
    postgres.add_user("app", "pw")
    async with site(postgres.dsn()) as here:
        await here.admin.execute(GRANTS)
        await here.admin.execute("select supervisor.reshard('view', 2)")
        await here.node("shop", "view/1of2")
        async with database_fixture(postgres.dsn(user="app", password="pw")) as house:
            seen = await here.cluster.fetch(house.database, StatusQuery(None, None, ALL))
        assert seen["cluster"]["problem"] is None
        assert [row["leases"][0]["name"] for row in seen["nodes"]] == ["view/1of2"]
        assert [row["lag_events"] for row in seen["projections"]] == [0]


async def test_a_database_without_the_schema_is_a_remark(database: str) -> None:
    """What goes wrong with the query stands beside the rows; it ends neither the status nor the daemon."""
    async with database_fixture(database) as house:
        cluster = ClusterStatus(clock=SystemClock(), tasks=house.tasks)
        seen = await cluster.fetch(house.database, StatusQuery(None, None, {}))
        assert "UndefinedTable" in seen["cluster"]["problem"]
        assert house.crashed == {}


async def test_lag_counts_what_is_not_applied(database: str) -> None:
    """Events beyond the checkpoint count if their stream is the projection's, with the age of the oldest."""
    async with site(database) as here:
        await here.admin.execute("select supervisor.reshard('view', 1)")
        assert (await here.lag(ALL))["lag_events"] == 0
        await here.admin.execute("select supervisor.append(s, 't') from unnest(array['a-1', 'b-1', 'a-2', 'a-3']) s")
        await here.admin.execute("update supervisor.event set at = now() - interval '90 s' where stream = 'b-1'")
        row = await here.lag(ALL)
        assert (row["lag_events"], row["lag_exact"]) == (4, True)
        assert row["lag_s"] >= 90
        row = await here.lag({"view": ["a-%"]})
        assert row["lag_events"] == 3
        assert row["lag_s"] < 80
        await here.admin.execute(
            "update supervisor.checkpoint set position = (select max(position) from supervisor.event)"
        )
        row = await here.lag(ALL)
        assert (row["lag_events"], row["lag_exact"], row["lag_s"]) == (0, True, 0.0)


async def test_the_lag_of_shards_is_that_of_their_streams(database: str) -> None:
    """Each event counts for one shard, also for those that were laid out anew; a node's lag is that of its shards."""
    async with site(database) as here:
        await here.admin.execute("select supervisor.reshard('view', 4)")
        await here.admin.execute("select supervisor.append('s-' || n % 40, 't') from generate_series(1, 400) n")
        shards = (await here.lag(ALL))["shards"]
        assert sum(shard["lag_events"] for shard in shards) == 400
        assert all(shard["lag_events"] >= 10 for shard in shards)
        await here.admin.execute("update supervisor.checkpoint set position = 1000 where shard = 0")
        await here.admin.execute("select supervisor.reshard('view', 2)")
        row = await here.lag(ALL)
        assert row["lag_events"] == 400 - shards[0]["lag_events"]
        await here.node("shop", "view/1of2")
        seen = await here.look(streams=ALL)
        assert seen["nodes"][0]["lag_events"] == row["shards"][0]["lag_events"]
        assert (await here.look())["nodes"][0]["lag_events"] is None


@pytest.mark.parametrize("shards", [1, 8])
async def test_a_long_backlog_is_estimated(database: str, shards: int) -> None:
    """Of a long backlog only its beginning is counted, so that no client waits for it, and the rest is estimated."""
    async with site(database) as here:
        await here.admin.execute("select supervisor.reshard('view', $1)", shards)
        await here.admin.execute(
            "insert into supervisor.event (position, stream, type, data, bucket) select n, 's', 't', '{}', n % 1000"
            " from generate_series(1001, 151000) n"
        )
        row = await here.lag(ALL)
        assert row["lag_exact"] is False
        assert row["lag_events"] == pytest.approx(150_000, rel=0.01)
        assert row["lag_s"] > 0
