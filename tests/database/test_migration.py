"""The SQL schema: made once, by whoever starts first, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import shutil
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.bouncer import bouncer
from support.gatehouse import HurriedClock, aside, gatehouse, policy
from support.postgres import run_tool
from support.schema import connection, make_schema

from supervisor.clock import SystemClock
from supervisor.database.migration import SCHEMA, Change, bring_up_to_date, ensure_schema, is_outdated, known_files
from supervisor.errors import ConnectAttemptsExhausted, DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.gatehouse import Gatehouse
    from support.postgres import Postgres

KNOWN = len(known_files())
# As a daemon's start has it: a refusal ends it.
AT_ONCE = policy(retry_refused=False, attempts=10)
LOCK = "select pg_advisory_lock(1885827845, 0)"


async def look(connected: Any, mode: Any = "auto", folder: Path = SCHEMA, clock: Any = None) -> Change:
    """Bring the schema behind a connection up to date."""
    return await bring_up_to_date(connected, mode=mode, clock=clock or SystemClock(), rng=Random(7), folder=folder)


async def ensure(
    house: Gatehouse, *, mode: Any = "auto", is_needed: bool = True, folder: Path = SCHEMA, clock: Any = None
) -> None:
    """Ensure the schema as a daemon's start does."""
    await ensure_schema(
        house.database, mode=mode, is_needed=is_needed, clock=clock or SystemClock(), rng=Random(7), folder=folder
    )


@pytest.fixture
def next_schema(tmp_path: Path) -> Callable[[str], Path]:
    """A maker of folders with the schema and one more file, as a later version would have it."""

    def make(sql: str) -> Path:
        folder = tmp_path / "schema"
        shutil.copytree(SCHEMA, folder)
        (folder / f"{KNOWN + 1:03}_next.sql").write_text(sql)
        return folder

    return make


async def seen(condition: Callable[[], bool]) -> None:
    """Wait until something is so; it is asked in a thread."""
    async with asyncio.timeout(20):
        while not await aside(condition):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)


# Decisions


@pytest.mark.parametrize(
    ("found", "mode", "outcome"),
    [
        (2, "auto", False), (2, "check", False), (0, "auto", True), (1, "auto", True),
        (0, "check", "is not there.*pgsupervisor migrate"), (1, "check", "has version 1.*pgsupervisor migrate"),
        (3, "auto", "has version 3.*up to 2"), (3, "check", "has version 3.*up to 2"),
    ],
)  # fmt: skip
def test_what_a_version_means(found: int, mode: Any, outcome: bool | str) -> None:
    """An older schema is upgraded unless it is only to be looked at, a newer one is refused in any case."""
    if isinstance(outcome, bool):
        assert is_outdated(found, 2, mode) is outcome
        return
    with pytest.raises(SchemaIncompatible, match=outcome):
        is_outdated(found, 2, mode)


def test_the_files_are_resources_of_the_package() -> None:
    """The SQL is found in an installed package, and numbered without a gap."""
    names = sorted(file.name for file in files("supervisor.database").joinpath("schema").iterdir())
    assert names == [file.name for file in known_files()]
    assert [int(name[:3]) for name in names] == list(range(1, len(names) + 1))


# Making it


async def test_ten_starts_in_one_instant_make_one_schema(postgres: Postgres) -> None:
    """Ten at once on an empty database: exactly one makes it, and neither they nor the server see an error."""
    connections = [await asyncpg.connect(postgres.dsn()) for _ in range(10)]
    changes = await asyncio.gather(*(look(connected) for connected in connections))
    assert sorted(changes) == [Change(0, KNOWN)] + [Change(KNOWN, KNOWN)] * 9
    rows = await connections[0].fetch("select version from supervisor.migration order by 1")
    assert [row["version"] for row in rows] == list(range(1, KNOWN + 1))
    for connected in connections:
        await connected.close()
    errors = [line for line in postgres.log.read_text().splitlines() if "ERROR:" in line]
    assert [line for line in errors if 'relation "supervisor.migration" does not exist' not in line] == []


async def test_a_schema_that_is_up_to_date_costs_one_statement(postgres: Postgres) -> None:
    """A start looks once, in one round trip, on the connection that is there already."""
    await make_schema(postgres.dsn())
    async with gatehouse(postgres.dsn(), pool_min=0) as house:
        postgres.set_config("log_statement", "all")
        postgres.set_config("log_min_duration_statement", "0")
        backend, before = house.backend(), len(postgres.log.read_text())
        await ensure(house)
        assert "schema.applied" not in house.entries.events
        lines = [line for line in postgres.log.read_text()[before:].splitlines() if f"[{backend}]" in line]
    assert [line for line in lines if "statement: " in line] == [
        line for line in lines if "supervisor.migration" in line
    ]
    assert len([line for line in lines if "statement: " in line]) == 1
    assert not [line for line in lines if "parse" in line or "bind" in line]


async def test_what_was_applied_is_told_once(database: str) -> None:
    """The start that makes the schema says so, with the version, and the next one says nothing."""
    async with gatehouse(database) as house:
        await ensure(house, is_needed=False)
        await ensure(house)
        (told,) = house.entries.of("schema.applied")
        assert told.fields["version"] == KNOWN
        assert "former" not in told.fields


async def test_what_a_role_or_database_has_set_changes_nothing(database: str) -> None:
    """Neither a stricter isolation nor a short time limit nor a strange search path keeps it from being made."""
    async with connection(database) as connected:
        name = await connected.fetchval("select current_database()")
        await connected.execute("""
            create schema decoy;
            create function decoy.now() returns timestamptz language sql as 'select null::timestamptz';
            create function decoy.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz';
        """)
        for setting in (
            "default_transaction_isolation = 'serializable'",
            "statement_timeout = '20ms'",
            "lock_timeout = '1ms'",
            "search_path = decoy, pg_catalog",
            "default_transaction_deferrable = on",
        ):
            await connected.execute(f"alter database {name} set {setting}")
    changes = await asyncio.gather(*(make_schema(database) for _ in range(5)))
    assert sorted(changes) == [Change(0, KNOWN)] + [Change(KNOWN, KNOWN)] * 4
    async with connection(database) as connected:
        assert await connected.fetchval("select supervisor.append('a', 'b')") == 2
        assert await connected.fetchval("select at from supervisor.event") is not None


async def test_one_that_only_looks_makes_nothing(database: str) -> None:
    """`migrate = "check"` refuses an absent schema, says what to run, and leaves the database as it was."""
    async with gatehouse(database) as house:
        with pytest.raises(SchemaIncompatible, match="pgsupervisor migrate"):
            await ensure(house, mode="check", is_needed=False)
        assert await house.view().fetchval("select to_regnamespace('supervisor')") is None


async def test_a_newer_schema_is_refused(database: str) -> None:
    """A daemon that is older than the schema says both versions and touches nothing."""
    await make_schema(database)
    async with connection(database) as connected:
        await connected.execute("insert into supervisor.migration (version) values (99)")
    async with gatehouse(database) as house:
        with pytest.raises(SchemaIncompatible, match=f"has version 99.*up to {KNOWN}"):
            await ensure(house, is_needed=False)


@pytest.mark.parametrize(
    "sql",
    ["create schema supervisor; create table supervisor.event (mine int)",
     "create schema supervisor; create table supervisor.migration (mine int)"],
)  # fmt: skip
async def test_what_somebody_else_calls_supervisor_is_left_alone(database: str, sql: str) -> None:
    """Another application's schema of that name is a clear error, and none of its tables is touched."""
    async with connection(database) as connected:
        await connected.execute(sql)
        with pytest.raises(SchemaIncompatible, match="another schema named supervisor"):
            await look(connected)
        tables = await connected.fetch("select tablename from pg_tables where schemaname = 'supervisor'")
        assert len(tables) == 1
        assert not connected.is_in_transaction()


# Privileges


async def test_a_role_that_may_not_make_it_says_what_is_missing(postgres: Postgres) -> None:
    """Without the privilege a start that needs the schema is refused with the remedy; another one goes on."""
    postgres.add_user("app", "pw")
    async with gatehouse(postgres.dsn(user="app", password="pw"), startup=AT_ONCE) as house:
        with pytest.raises(
            DatabaseAccessDenied, match=r"permission denied.*pgsupervisor migrate.*GRANT USAGE ON SCHEMA"
        ):
            await ensure(house)
        assert house.entries.of("schema.absent") == []
        await ensure(house, is_needed=False)
        (told,) = house.entries.of("schema.absent")
        assert "42501" in told.fields["reason"]


async def test_a_refusal_is_tried_again_where_that_is_wanted(postgres: Postgres) -> None:
    """With `retry_refused` a start waits for the GRANTs, says so once, and ends after its attempts."""
    postgres.add_user("app", "pw")
    dsn = postgres.dsn(user="app", password="pw")
    async with gatehouse(dsn, startup=policy(retry_refused=True, attempts=3)) as house:
        with pytest.raises(ConnectAttemptsExhausted, match=r"after 3 attempts.*permission denied"):
            await ensure(house)
        assert len(house.entries.of("schema.awaited")) == 1
    async with gatehouse(dsn, startup=policy(retry_refused=True, attempts=0)) as house:
        starting = asyncio.ensure_future(ensure(house))
        await house.entries.wait_for("schema.awaited")
        postgres.execute("create schema supervisor authorization app")
        async with asyncio.timeout(20):
            await starting
        assert len(house.entries.of("schema.applied")) == 1


async def test_a_role_that_may_not_read_it_says_what_is_missing(postgres: Postgres) -> None:
    """A schema that is there, without the GRANTs, is told from one that is not."""
    await make_schema(postgres.dsn())
    postgres.add_user("app", "pw")
    async with gatehouse(postgres.dsn(user="app", password="pw"), startup=AT_ONCE) as house:
        with pytest.raises(DatabaseAccessDenied, match=r"permission denied for schema supervisor.*GRANT SELECT ON ALL"):
            await ensure(house)
        postgres.execute("grant usage on schema supervisor to app; grant select on supervisor.migration to app")
        await ensure(house)


async def test_a_schema_made_for_the_role_is_enough(postgres: Postgres) -> None:
    """A role that owns an empty schema, and may create nothing else, fills it."""
    postgres.add_user("app", "pw")
    postgres.execute("create schema supervisor authorization app")
    assert await make_schema(postgres.dsn(user="app", password="pw")) == Change(0, KNOWN)


async def test_a_read_only_server_is_told_from_a_missing_privilege(postgres: Postgres) -> None:
    """Where nothing can be written the refusal says so; where the schema is there already it does not matter."""
    postgres.set_read_only()
    async with gatehouse(postgres.dsn(), startup=AT_ONCE) as house:
        with pytest.raises(DatabaseAccessDenied, match=r"read-only.*on the primary"):
            await ensure(house)
        await ensure(house, is_needed=False)
        assert len(house.entries.of("schema.absent")) == 1
        assert house.database.is_up
    postgres.set_read_only(False)
    await make_schema(postgres.dsn())
    postgres.set_read_only()
    async with gatehouse(postgres.dsn()) as house:
        await ensure(house)


# Interrupted


async def test_a_connection_lost_in_the_middle_leaves_nothing_behind(
    postgres: Postgres, next_schema: Callable[[str], Path]
) -> None:
    """What had been applied by then is gone with the transaction, and the next call does all of it."""
    folder = next_schema("select pg_sleep(60)")
    async with connection(postgres.dsn()) as connected:
        change = asyncio.ensure_future(look(connected, folder=folder))
        await seen(lambda: postgres.sessions("query like '%pg_sleep%'") == 1)
        await aside(postgres.terminate, "query like '%pg_sleep%'")
        with pytest.raises(DatabaseUnavailable):
            await change
    assert postgres.execute("select to_regnamespace('supervisor') is null") == "t"
    assert await make_schema(postgres.dsn()) == Change(0, KNOWN)


async def test_an_outage_in_the_middle_is_waited_out(postgres: Postgres, next_schema: Callable[[str], Path]) -> None:
    """A start whose server restarts while the schema is made goes on when it is back, with an error for nobody."""
    folder = next_schema("select pg_sleep(case when pg_postmaster_start_time() > '%s' then 0 else 60 end)")
    started = postgres.execute("select pg_postmaster_start_time() + interval '1 ms'")
    last = folder / f"{KNOWN + 1:03}_next.sql"
    last.write_text(last.read_text() % started)
    async with gatehouse(postgres.dsn()) as house:
        making = asyncio.ensure_future(ensure(house, folder=folder))
        await seen(lambda: postgres.sessions("query like '%pg_sleep%'") == 1)
        await aside(postgres.stop, "immediate")
        await house.down()
        await aside(postgres.start)
        async with asyncio.timeout(20):
            await making
        (told,) = house.entries.of("schema.applied")
        assert told.fields["version"] == KNOWN + 1


async def test_a_cancelled_start_leaves_no_lock(database: str, next_schema: Callable[[str], Path]) -> None:
    """A stop while the schema is made ends the transaction, and the lock is free for the next."""
    folder = next_schema("select pg_sleep(60)")
    async with gatehouse(database) as house, connection(database) as other:
        making = asyncio.ensure_future(ensure(house, folder=folder))
        async with asyncio.timeout(20):
            while not await other.fetchval("select count(*) from pg_locks where classid = 1885827845 and granted"):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.005)
        making.cancel()
        await asyncio.wait([making], timeout=20)
        assert making.cancelled()
        async with asyncio.timeout(20):
            assert await look(other) == Change(0, KNOWN)


async def test_a_connection_that_is_lost_again_and_again_ends_the_start(
    postgres: Postgres, next_schema: Callable[[str], Path]
) -> None:
    """An upgrade that kills its session each time is not tried for ever: the start gives up and says why."""
    folder = next_schema("select pg_terminate_backend(pg_backend_pid())")
    async with gatehouse(postgres.dsn()) as house:
        with pytest.raises(ConnectAttemptsExhausted, match="The connection was lost"):
            await ensure(house, folder=folder, clock=HurriedClock())
        assert house.database.is_up


async def test_a_proxy_that_pools_transactions_is_no_hindrance(postgres: Postgres) -> None:
    """Ten at once through few server connections, none of them prepared: one schema, and no error."""
    with bouncer(postgres, "transaction", default_pool_size=3) as dsn:
        async with gatehouse(dsn):
            pass  # it accepts
        connections = [await asyncpg.connect(dsn) for _ in range(10)]
        changes = await asyncio.gather(*(look(connected) for connected in connections))
        assert sorted(changes) == [Change(0, KNOWN)] + [Change(KNOWN, KNOWN)] * 9
        for connected in connections:
            await connected.close()


# Others at work


async def test_whoever_holds_the_lock_for_too_long_is_named(database: str) -> None:
    """The wait for another migrator ends after a minute, and the error names its session."""
    async with connection(database, server_settings={"application_name": "slow one"}) as other:
        await other.execute(LOCK)
        async with connection(database) as connected:
            with pytest.raises(
                ConnectAttemptsExhausted, match=rf"pid {other.get_server_pid()} \(slow one, idle\) is in the way"
            ):
                await look(connected, clock=HurriedClock(speed=200.0))


async def test_an_upgrade_lets_others_work_on(database: str, next_schema: Callable[[str], Path]) -> None:
    """An upgrade that waits for somebody's transaction steps back, so that nobody waits behind it for long."""
    await make_schema(database)
    folder = next_schema("alter table supervisor.event add column origin text")
    async with (
        connection(database) as reader,
        connection(database) as writer,
        connection(database) as upgrader,
    ):
        reading = reader.transaction()
        await reading.start()
        await reader.execute("select from supervisor.event")
        change = asyncio.ensure_future(look(upgrader, folder=folder))
        for _ in range(20):
            async with asyncio.timeout(5):
                await writer.fetchval("select supervisor.append('a', 'b')")
        assert not change.done()
        await reading.rollback()
        async with asyncio.timeout(20):
            assert await change == Change(KNOWN, KNOWN + 1)
        # The older daemon's session, with its prepared statements, goes on.
        assert await writer.fetchval("select supervisor.append('a', 'b')") == 22
        with pytest.raises(SchemaIncompatible, match="newer one has upgraded it"):
            await look(writer)


async def test_a_dump_goes_on_where_it_was(make_postgres: Callable[[], Postgres]) -> None:
    """A dump restored into another cluster has the schema's version, and its events go on with larger positions."""
    old, new = make_postgres(), make_postgres()
    await make_schema(old.dsn())
    for _ in range(5):
        last = int(old.execute("select supervisor.append('a', 'b')"))
    dump = old.home / "dump.sql"
    run_tool("pg_dump", "-d", old.dsn(host="socket"), "-f", dump)
    run_tool("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", new.dsn(host="socket"), "-f", dump)
    async with connection(new.dsn()) as connected:
        assert await look(connected, "check") == Change(KNOWN, KNOWN)
        assert await connected.fetchval("select supervisor.horizon()") == last
        assert await connected.fetchval("select supervisor.append('a', 'b')") == last + 1
        assert await connected.fetchval("select count(*) from supervisor.event") == 6
