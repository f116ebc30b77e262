"""The released versions of the SQL schema: the present one is saved, and a later one keeps what daemons rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.saved_schemas import COMMAND, dump, path_of, saved, saved_versions
from support.schema import KNOWN, connection, make_schema, next_schema_folder, promises

from supervisor.database.schema.migrate import MigrationResult
from supervisor.database.schema.version import FOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from support.postgres import Postgres

GOOD = """
    alter table supervisor.event add column origin text;
    create function supervisor.append_from(origin text, stream text, type text) returns bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$ select supervisor.append(stream, type) $$;
"""
FUNCTION = "language sql security definer set search_path = pg_catalog, pg_temp as"
# Each breaks a daemon that knows the schema, with what is reported.
BROKEN = {
    "drop function supervisor.head()": "head() returns bigint",
    f"""
        drop function supervisor.head();
        create function supervisor.head() returns numeric {FUNCTION} $$ select 1.0 $$;
    """: "head() returns bigint",
    f"create function supervisor.head(n int) returns int {FUNCTION} $$ select n $$": "head(n integer) returns integer",
    f"""
        drop function supervisor.notify_checkpoint_moved(text);
        create function supervisor.notify_checkpoint_moved(name text) returns void {FUNCTION} $$ select $$;
    """: "notify_checkpoint_moved(projection text) returns void",
    "alter function supervisor.head() rename to last": "head() returns bigint",
    "alter table supervisor.dead_letter drop column died_at": "dead_letter.died_at timestamp with time zone",
    "alter table supervisor.event rename column at to appended_at": "event.at timestamp with time zone",
    "alter table supervisor.node alter column pid type bigint": "node.pid integer",
    "drop table supervisor.dead_letter": "dead_letter.died_at timestamp with time zone",
    "revoke select on supervisor.event from app": "SELECT on supervisor.event to app",
    "revoke all on all functions in schema supervisor from public": "EXECUTE on supervisor.head() to public",
}  # fmt: skip


async def test_the_present_version_is_saved(postgres: Postgres) -> None:
    """An empty database gets the schema of `tests/schemas`; a released version never changes."""
    made = await dump(postgres)
    assert made == saved(KNOWN), (
        f"{path_of(KNOWN)} is not what the migration files make. If version {KNOWN} has been released, restore its"
        f" files and write a new one; else commit the files, then run: {COMMAND} ARGS=--replace"
    )


@pytest.mark.parametrize("version", saved_versions())
async def test_a_saved_version_is_upgraded(database: str, version: int) -> None:
    """A database of a released version becomes the present one, and keeps all that the daemons of that release use."""
    async with connection(database) as connected:
        await connected.execute("set check_function_bodies = off")  # the functions come before the tables
        await connected.execute(saved(version))
        before = await promises(connected)
    assert await make_schema(database) == MigrationResult(version, KNOWN, KNOWN)
    async with connection(database) as connected:
        assert before.broken_by(await promises(connected)) == []
        assert await connected.fetchval("select supervisor.append('a', 'b')") == 2


async def test_what_a_later_version_may_add(database: str, tmp_path: Path) -> None:
    """A new column and a function with a new name break nothing."""
    await make_schema(database)
    async with connection(database) as connected:
        before = await promises(connected)
        await make_schema(database, folder=next_schema_folder(tmp_path, GOOD))
        assert before.broken_by(await promises(connected)) == []


@pytest.mark.parametrize("sql", BROKEN, ids=range(len(BROKEN)))
async def test_what_a_later_version_may_not_change(postgres: Postgres, tmp_path: Path, sql: str) -> None:
    """Found are functions dropped, overloaded or changed in shape, and columns and privileges that are gone."""
    await make_schema(postgres.dsn())
    postgres.add_user("app", "pw")
    postgres.execute("grant select on supervisor.event to app; grant execute on function supervisor.head to public")
    async with connection(postgres.dsn()) as connected:
        before = await promises(connected)
        await make_schema(postgres.dsn(), folder=next_schema_folder(tmp_path, sql))
        assert BROKEN[sql] in before.broken_by(await promises(connected))


def test_every_file_is_in_the_saved_version() -> None:
    """The saved version is the one that the last file makes."""
    assert saved_versions()[-1] == KNOWN == len(list(FOLDER.glob("*.sql")))
