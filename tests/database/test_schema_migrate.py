"""The migrator: one daemon creates or upgrades the SQL schema, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.database_fixture import FastClock, aside, database_fixture, policy
from support.pgbouncer import pgbouncer
from support.postgres import run_tool
from support.schema import KNOWN, connection, make_schema, next_schema_folder

from supervisor.clock import SystemClock
from supervisor.database.schema.locks import LockSpace
from supervisor.database.schema.migrate import MigrationResult, ensure_schema, migrate
from supervisor.database.schema.version import FOLDER, AppliedMigration, migration_files, needs_upgrade
from supervisor.errors import ConnectAttemptsExhausted, DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Protocol

    from support.database_fixture import DatabaseFixture
    from support.postgres import Postgres

    class MakeFolder(Protocol):
        def __call__(self, sql: str, *, oldest_daemon: int = ...) -> Path: ...


CREATED, UNCHANGED = MigrationResult(0, KNOWN, KNOWN), MigrationResult(KNOWN, KNOWN, KNOWN)
# The policy of a start that one refusal ends.
AT_ONCE = policy(retry_refused=False, attempts=10)
LOCK = f"select pg_advisory_lock({LockSpace.MIGRATION:d}, 0)"


async def upgrade(connected: Any, mode: Any = "auto", folder: Path = FOLDER, clock: Any = None) -> MigrationResult:
    """Bring the schema behind a connection up to date."""
    return await migrate(connected, mode=mode, clock=clock or SystemClock(), rng=Random(7), folder=folder)


async def ensure(
    house: DatabaseFixture, *, mode: Any = "auto", is_needed: bool = True, folder: Path = FOLDER, clock: Any = None
) -> None:
    """Ensure the schema as a daemon's start does."""
    await ensure_schema(
        house.database,
        mode=lambda: mode,
        is_needed=lambda: is_needed,
        clock=clock or SystemClock(),
        rng=Random(7),
        folder=folder,
    )


@pytest.fixture
def next_schema(tmp_path: Path) -> MakeFolder:
    """A maker of folders with the schema and one more file, as a later version would have it."""
    return partial(next_schema_folder, tmp_path)


async def seen(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true; it is evaluated in a thread."""
    async with asyncio.timeout(30):
        while not await aside(condition):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


def applied(found: int, oldest_daemon: int = 1) -> list[AppliedMigration]:
    """Return the rows of a schema of version `found` whose last file names `oldest_daemon`."""
    rows = [AppliedMigration(file.version, file.oldest_daemon, file.digest) for file in migration_files()[:found]]
    rows += [AppliedMigration(version, oldest_daemon, "later") for version in range(KNOWN + 1, found + 1)]
    return rows


@pytest.mark.parametrize(
    ("found", "oldest_daemon", "mode", "outcome"),
    [
        (2, 1, "auto", False), (2, 1, "check", False), (0, 1, "auto", True), (1, 1, "auto", True),
        (0, 1, "check", "is not there.*pgsupervisor migrate"), (1, 1, "check", "has version 1.*pgsupervisor migrate"),
        (3, 3, "auto", "has version 3.*up to 2.*version 3 or later"), (3, 3, "check", "has version 3.*up to 2"),
        (3, 2, "auto", False), (3, 2, "check", False), (3, 1, "auto", False),
        (9, 2, "auto", False), (9, 3, "check", "has version 9.*up to 2.*version 3 or later"),
    ],
)  # fmt: skip
def test_what_a_version_means(found: int, oldest_daemon: int, mode: Any, outcome: bool | str) -> None:
    """An older schema is upgraded unless that is forbidden; a newer one is refused only if it excludes this daemon."""
    if isinstance(outcome, bool):
        assert needs_upgrade(applied(found, oldest_daemon), migration_files(), mode) is outcome
        return
    with pytest.raises(SchemaIncompatible, match=outcome):
        needs_upgrade(applied(found, oldest_daemon), migration_files(), mode)


@pytest.mark.parametrize("found", [1, 2, 3])
@pytest.mark.parametrize("mode", ["auto", "check"])
def test_a_schema_of_other_files_is_refused(found: int, mode: Any) -> None:
    """A row whose file differs from this daemon's is neither used nor upgraded, and the error says what to do."""
    rows = applied(found)
    rows[0] = rows[0]._replace(digest="another")
    with pytest.raises(SchemaIncompatible, match=r"migration 1 differs.*DROP SCHEMA supervisor CASCADE.*migrate"):
        needs_upgrade(rows, migration_files(), mode)


def test_the_files_are_resources_of_the_package() -> None:
    """The SQL is found in an installed package, and numbered without a gap."""
    folder = files("supervisor.database").joinpath("schema")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    assert [int(name[:3]) for name in names] == [file.version for file in migration_files()]
    assert [folder.joinpath(name).read_text("utf-8") for name in names] == [file.sql for file in migration_files()]


@pytest.mark.parametrize("header", ["", "-- oldest daemon: 0\n", "-- oldest daemon: 4\n", "-- oldest daemon: 1\n" * 2])
def test_a_file_says_its_oldest_daemon(tmp_path: Path, header: str) -> None:
    """A file without its line, with two of them, or with a number that no daemon can have is a fault of the package."""
    folder = next_schema_folder(tmp_path, "")
    (folder / f"{KNOWN + 1:03}_next.sql").write_text(f"{header}select 1")
    with pytest.raises(ValueError, match="has to say its oldest daemon once"):
        migration_files(folder)


def test_the_oldest_daemon_never_falls(tmp_path: Path) -> None:
    """What excluded a daemon once excludes it for ever: the last row decides for all."""
    folder = next_schema_folder(tmp_path, "", oldest_daemon=KNOWN + 1)
    (folder / f"{KNOWN + 2:03}_after.sql").write_text("-- oldest daemon: 1\nselect 1")
    with pytest.raises(ValueError, match="has to say its oldest daemon once"):
        migration_files(folder)


def test_a_comment_is_no_change(tmp_path: Path) -> None:
    """The digest of a file does not depend on its comment lines and its indentation."""
    digests = [file.digest for file in migration_files()]
    folder = next_schema_folder(tmp_path, "select 1")
    for file in folder.iterdir():
        lines = file.read_text().split("\n")
        file.write_text("\n-- more\n\n".join(line if line.startswith("--") else f"  {line}" for line in lines))
    assert [file.digest for file in migration_files(folder)][:KNOWN] == digests


async def test_ten_concurrent_starts_create_one_schema(postgres: Postgres) -> None:
    """Of ten concurrent starts on an empty database one creates the schema, and there is no error anywhere."""
    connections = [await asyncpg.connect(postgres.dsn()) for _ in range(10)]
    changes = await asyncio.gather(*(upgrade(connected) for connected in connections))
    assert sorted(changes) == [CREATED] + [UNCHANGED] * 9
    rows = await connections[0].fetch("select version from supervisor.migration order by 1")
    assert [row["version"] for row in rows] == list(range(1, KNOWN + 1))
    for connected in connections:
        await connected.close()
    errors = [line for line in postgres.log.read_text().splitlines() if "ERROR:" in line]
    assert [line for line in errors if 'relation "supervisor.migration" does not exist' not in line] == []


async def test_a_schema_that_is_up_to_date_costs_one_statement(postgres: Postgres) -> None:
    """A start reads the version once, in one round trip, on the monitor's connection."""
    await make_schema(postgres.dsn())
    async with database_fixture(postgres.dsn(), pool_min=0) as house:
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


async def test_an_applied_version_is_logged_once(database: str) -> None:
    """The start that creates the schema logs it with the version, and the next start logs nothing."""
    async with database_fixture(database) as house:
        await ensure(house, is_needed=False)
        await ensure(house)
        (told,) = house.entries.of("schema.applied")
        assert told.fields["version"] == KNOWN
        assert "former" not in told.fields


async def test_the_settings_of_a_role_or_database_change_nothing(database: str) -> None:
    """A stricter isolation, a short timeout or an unusual search path does not keep the schema from being created."""
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
    assert sorted(changes) == [CREATED] + [UNCHANGED] * 4
    async with connection(database) as connected:
        assert await connected.fetchval("select supervisor.append('a', 'b')") == 2
        assert await connected.fetchval("select at from supervisor.event") is not None


async def test_check_mode_changes_nothing(database: str) -> None:
    """`migrate = "check"` refuses an absent schema that is needed, says what to run, and changes nothing."""
    async with database_fixture(database) as house:
        with pytest.raises(SchemaIncompatible, match="pgsupervisor migrate"):
            await ensure(house, mode="check")
        assert house.entries.of("schema.absent") == []
        await ensure(house, mode="check", is_needed=False)
        (told,) = house.entries.of("schema.absent")
        assert told.fields["reason"] == (
            f'The SQL schema is not there, version {KNOWN} is needed, and migrate = "check" changes nothing:'
            " run `pgsupervisor migrate`."
        )
        assert await house.view().fetchval("select to_regnamespace('supervisor')") is None


async def test_a_newer_schema_that_excludes_the_daemon_is_refused(database: str) -> None:
    """A daemon that is too old for the schema names both versions; without a need for it the daemon goes on."""
    await make_schema(database)
    async with connection(database) as connected:
        await connected.execute("insert into supervisor.migration values (99, now(), 99, '')")
    async with database_fixture(database) as house:
        with pytest.raises(SchemaIncompatible, match=f"has version 99.*up to {KNOWN}"):
            await ensure(house)
        await ensure(house, is_needed=False)
        (told,) = house.entries.of("schema.absent")
        assert "has version 99" in told.fields["reason"]


async def test_a_newer_schema_that_allows_the_daemon_is_used(database: str, next_schema: MakeFolder) -> None:
    """A daemon starts on a newer schema that does not exclude it, and logs that once."""
    await make_schema(database, folder=next_schema("create table supervisor.more (n int)"))
    for mode in ("auto", "check"):
        async with database_fixture(database) as house:
            await ensure(house, mode=mode)
            (told,) = house.entries.of("schema.newer")
            assert (told.fields["version"], told.fields["daemon"]) == (KNOWN + 1, KNOWN)
            assert house.entries.of("schema.applied") == []
    assert await make_schema(database) == MigrationResult(KNOWN + 1, KNOWN + 1, KNOWN)
    async with connection(database) as connected:
        rows = await connected.fetch("select version, oldest_daemon from supervisor.migration order by 1")
        assert [tuple(row) for row in rows] == [(1, 1), (2, 1), (KNOWN + 1, KNOWN)]


async def test_a_schema_without_the_columns_is_of_an_earlier_checkout(database: str) -> None:
    """A schema that was made before the first release is refused with what to do, and is left as it was."""
    async with connection(database) as connected:
        await connected.execute("""
            create schema supervisor;
            create table supervisor.migration (version int primary key, applied_at timestamptz not null default now());
            insert into supervisor.migration values (1), (2);
        """)
        remedy = r"never released.*oldest_daemon.*pg_dump.*DROP SCHEMA supervisor CASCADE.*pgsupervisor migrate"
        for mode in ("auto", "check"):
            with pytest.raises(SchemaIncompatible, match=remedy):
                await upgrade(connected, mode)
        assert await connected.fetchval("select count(*) from supervisor.migration") == 2
        await connected.execute("drop schema supervisor cascade")
        assert await upgrade(connected) == CREATED


async def test_a_schema_of_changed_files_is_refused(database: str) -> None:
    """A schema that another text of a file has made is refused by every start that needs it."""
    await make_schema(database)
    async with connection(database) as connected:
        await connected.execute("update supervisor.migration set digest = 'another' where version = 2")
    async with database_fixture(database) as house:
        with pytest.raises(SchemaIncompatible, match=r"migration 2 differs.*DROP SCHEMA supervisor CASCADE"):
            await ensure(house)


@pytest.mark.parametrize(
    "sql",
    ["create schema supervisor; create table supervisor.event (mine int)",
     "create schema supervisor; create table supervisor.migration (mine int)"],
)  # fmt: skip
async def test_another_schema_named_supervisor_is_not_touched(database: str, sql: str) -> None:
    """Another application's schema of that name is a clear error, and none of its tables is touched."""
    async with connection(database) as connected:
        await connected.execute(sql)
        with pytest.raises(SchemaIncompatible, match=r"a schema named supervisor in this database\.$"):
            await upgrade(connected)
        tables = await connected.fetch("select tablename from pg_tables where schemaname = 'supervisor'")
        assert len(tables) == 1
        assert not connected.is_in_transaction()


async def test_a_role_that_cannot_create_the_schema_is_told_what_is_missing(postgres: Postgres) -> None:
    """Without the privilege a start that needs the schema is refused with the remedy; any other start continues."""
    postgres.add_user("app", "pw")
    async with database_fixture(postgres.dsn(user="app", password="pw"), startup=AT_ONCE) as house:
        with pytest.raises(
            DatabaseAccessDenied, match=r"permission denied.*pgsupervisor migrate.*GRANT USAGE ON SCHEMA"
        ):
            await ensure(house)
        assert house.entries.of("schema.absent") == []
        await ensure(house, is_needed=False)
        (told,) = house.entries.of("schema.absent")
        assert "42501" in told.fields["reason"]


async def test_a_refusal_is_retried_with_retry_refused(postgres: Postgres) -> None:
    """With `retry_refused` a start waits for the grants, logs that once, and ends after its attempts."""
    postgres.add_user("app", "pw")
    dsn = postgres.dsn(user="app", password="pw")
    async with database_fixture(dsn, startup=policy(retry_refused=True, attempts=3)) as house:
        with pytest.raises(ConnectAttemptsExhausted, match=r"after 3 attempts.*permission denied"):
            await ensure(house)
        assert len(house.entries.of("schema.waiting")) == 1
    async with database_fixture(dsn, startup=policy(retry_refused=True, attempts=0)) as house:
        starting = asyncio.ensure_future(ensure(house))
        await house.entries.wait_for("schema.waiting")
        postgres.execute("create schema supervisor authorization app")
        async with asyncio.timeout(30):
            await starting
        assert len(house.entries.of("schema.applied")) == 1


async def test_a_role_that_cannot_read_the_version_is_told_what_is_missing(postgres: Postgres) -> None:
    """A schema without the grants is not mistaken for a missing one, and the error names the grants."""
    await make_schema(postgres.dsn())
    postgres.add_user("app", "pw")
    async with database_fixture(postgres.dsn(user="app", password="pw"), startup=AT_ONCE) as house:
        with pytest.raises(DatabaseAccessDenied, match=r"permission denied for schema supervisor.*GRANT SELECT ON ALL"):
            await ensure(house)
        postgres.execute("grant usage on schema supervisor to app")
        missing = r"\(SELECT on supervisor.migration\): permission denied for table migration.*GRANT SELECT ON ALL"
        with pytest.raises(DatabaseAccessDenied, match=missing):
            await ensure(house)
        postgres.execute("grant select on supervisor.migration to app")
        await ensure(house)


async def test_a_schema_made_for_the_role_is_enough(postgres: Postgres) -> None:
    """A role that owns an empty schema, and may create nothing else, fills it."""
    postgres.add_user("app", "pw")
    postgres.execute("create schema supervisor authorization app")
    assert await make_schema(postgres.dsn(user="app", password="pw")) == CREATED


async def test_a_read_only_server_is_not_mistaken_for_a_missing_privilege(postgres: Postgres) -> None:
    """The refusal of a read-only server says so; a schema that is up to date can be used there."""
    postgres.set_read_only()
    async with database_fixture(postgres.dsn(), startup=AT_ONCE) as house:
        with pytest.raises(DatabaseAccessDenied, match=r"read-only.*on the primary"):
            await ensure(house)
        await ensure(house, is_needed=False)
        assert len(house.entries.of("schema.absent")) == 1
        assert house.database.is_up
    postgres.set_read_only(False)
    await make_schema(postgres.dsn())
    postgres.set_read_only()
    async with database_fixture(postgres.dsn()) as house:
        await ensure(house)


async def test_a_connection_lost_in_the_middle_leaves_nothing_behind(
    postgres: Postgres, next_schema: MakeFolder
) -> None:
    """The part that was applied is rolled back, and the next call applies all of it."""
    folder = next_schema("select pg_sleep(60)")
    async with connection(postgres.dsn()) as connected:
        change = asyncio.ensure_future(upgrade(connected, folder=folder))
        await seen(lambda: postgres.sessions("query like '%pg_sleep%'") == 1)
        await aside(postgres.terminate, "query like '%pg_sleep%'")
        with pytest.raises(DatabaseUnavailable):
            await change
    assert postgres.execute("select to_regnamespace('supervisor') is null") == "t"
    assert await make_schema(postgres.dsn()) == CREATED


async def test_an_outage_in_the_middle_is_waited_out(postgres: Postgres, next_schema: MakeFolder) -> None:
    """A start whose server restarts during the migration continues when the server is back."""
    folder = next_schema("select pg_sleep(case when pg_postmaster_start_time() > '%s' then 0 else 60 end)")
    started = postgres.execute("select pg_postmaster_start_time() + interval '1 ms'")
    last = folder / f"{KNOWN + 1:03}_next.sql"
    last.write_text(last.read_text() % started)
    async with database_fixture(postgres.dsn()) as house:
        making = asyncio.ensure_future(ensure(house, folder=folder))
        await seen(lambda: postgres.sessions("query like '%pg_sleep%'") == 1)
        await aside(postgres.stop, "immediate")
        await house.down()
        await aside(postgres.start)
        async with asyncio.timeout(30):
            await making
        (told,) = house.entries.of("schema.applied")
        assert told.fields["version"] == KNOWN + 1


async def test_a_cancelled_start_leaves_no_lock(database: str, next_schema: MakeFolder) -> None:
    """A stop during the migration ends the transaction and frees the lock."""
    folder = next_schema("select pg_sleep(60)")
    async with database_fixture(database) as house, connection(database) as other:
        making = asyncio.ensure_future(ensure(house, folder=folder))
        held = f"select count(*) from pg_locks where classid = {LockSpace.MIGRATION:d} and granted"
        async with asyncio.timeout(30):
            while not await other.fetchval(held):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.005)
        making.cancel()
        await asyncio.wait([making], timeout=20)
        assert making.cancelled()
        async with asyncio.timeout(30):
            assert await upgrade(other) == CREATED


async def test_a_connection_that_is_lost_repeatedly_ends_the_start(postgres: Postgres, next_schema: MakeFolder) -> None:
    """An upgrade that ends its session each time is not retried for ever: the start gives up and says why."""
    folder = next_schema("select pg_terminate_backend(pg_backend_pid())")
    async with database_fixture(postgres.dsn()) as house:
        with pytest.raises(ConnectAttemptsExhausted, match="The connection was lost"):
            await ensure(house, folder=folder, clock=FastClock())
        assert house.database.is_up


async def test_a_transaction_pooler_does_not_matter(postgres: Postgres) -> None:
    """Ten concurrent migrators share a few server connections: they create one schema, without an error."""
    with pgbouncer(postgres, "transaction", default_pool_size=3) as dsn:
        async with database_fixture(dsn):
            pass  # it accepts
        connections = [await asyncpg.connect(dsn) for _ in range(10)]
        changes = await asyncio.gather(*(upgrade(connected) for connected in connections))
        assert sorted(changes) == [CREATED] + [UNCHANGED] * 9
        for connected in connections:
            await connected.close()


async def test_a_session_that_keeps_the_lock_is_named(database: str) -> None:
    """The wait for another migrator ends after a minute, and the error names its session."""
    async with connection(database, server_settings={"application_name": "slow one"}) as other:
        await other.execute(LOCK)
        async with connection(database) as connected:
            with pytest.raises(
                ConnectAttemptsExhausted, match=rf"pid {other.get_server_pid()} \(slow one, idle\) is in the way"
            ):
                await upgrade(connected, clock=FastClock(speed=200.0))


async def test_an_upgrade_does_not_block_others_for_long(database: str, next_schema: MakeFolder) -> None:
    """An upgrade that waits for a transaction retries often, so that no session waits behind it for long."""
    await make_schema(database)
    folder = next_schema("alter table supervisor.event add column origin text", oldest_daemon=KNOWN + 1)
    async with (
        connection(database) as reader,
        connection(database) as writer,
        connection(database) as upgrader,
    ):
        reading = reader.transaction()
        await reading.start()
        await reader.execute("select from supervisor.event")
        change = asyncio.ensure_future(upgrade(upgrader, folder=folder))
        for _ in range(20):
            async with asyncio.timeout(30):
                await writer.fetchval("select supervisor.append('a', 'b')")
        assert not change.done()
        await reading.rollback()
        async with asyncio.timeout(30):
            assert await change == MigrationResult(KNOWN, KNOWN + 1, KNOWN + 1)
        # The older daemon's session, with its prepared statements, goes on.
        assert await writer.fetchval("select supervisor.append('a', 'b')") == 22
        with pytest.raises(SchemaIncompatible, match="newer one has upgraded it"):
            await upgrade(writer)


async def test_a_restored_dump_continues(make_postgres: Callable[[], Postgres]) -> None:
    """A dump restored into another cluster has the schema's version, and its next event has a larger position."""
    old, new = make_postgres(), make_postgres()
    await make_schema(old.dsn())
    for _ in range(5):
        last = int(old.execute("select supervisor.append('a', 'b')"))
    dump = old.home / "dump.sql"
    run_tool("pg_dump", "-d", old.dsn(host="socket"), "-f", dump)
    run_tool("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", new.dsn(host="socket"), "-f", dump)
    async with connection(new.dsn()) as connected:
        assert await upgrade(connected, "check") == UNCHANGED
        assert await connected.fetchval("select supervisor.horizon()") == last
        assert await connected.fetchval("select supervisor.append('a', 'b')") == last + 1
        assert await connected.fetchval("select count(*) from supervisor.event") == 6
