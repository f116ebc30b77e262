"""The SQL schema, for tests that need it without a daemon."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from supervisor.clock import SystemClock
from supervisor.database.schema.migrate import MigrationResult, migrate
from supervisor.database.schema.version import FOLDER, migration_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from supervisor.clock import Clock

KNOWN = len(migration_files())


@asynccontextmanager
async def connection(dsn: str, **options: Any) -> AsyncIterator[Any]:
    """Give a plain connection, closed at the end."""
    connected = await asyncpg.connect(dsn, **options)
    try:
        yield connected
    finally:
        await connected.close(timeout=5)


async def make_schema(dsn: str, *, folder: Path = FOLDER, clock: Clock | None = None) -> MigrationResult:
    """Bring a database's schema up to date."""
    async with connection(dsn) as connected:
        return await migrate(connected, mode="auto", clock=clock or SystemClock(), rng=Random(7), folder=folder)


def next_schema_folder(parent: Path, sql: str, *, oldest_daemon: int = KNOWN) -> Path:
    """Return a folder with the schema's files and one more, as a later release would have it."""
    folder = parent / "schema"
    folder.mkdir()
    for file in FOLDER.glob("*.sql"):
        shutil.copy(file, folder)
    (folder / f"{KNOWN + 1:03}_next.sql").write_text(f"-- oldest daemon: {oldest_daemon}\n{sql}")
    return folder


class Promises(NamedTuple):
    """What a daemon that knows a schema relies on: a later version has to keep it.

    Attributes:
        functions: The signature of each function, with names, defaults and result.
        columns: The name and type of each column of a table or view.
        privileges: Each privilege that a role has been granted.
    """

    functions: frozenset[str]
    columns: frozenset[str]
    privileges: frozenset[str]

    def broken_by(self, later: Promises) -> list[str]:
        """Return what a later version of the schema lacks, and the names that it gives to a second function."""
        missing = sorted(promise for ours, theirs in zip(self, later, strict=True) for promise in ours - theirs)
        names = {signature.partition("(")[0] for signature in self.functions}
        added = sorted(later.functions - self.functions)
        return missing + [signature for signature in added if signature.partition("(")[0] in names]


async def promises(connected: Any) -> Promises:
    """Return what the schema behind a connection promises to the daemons that know it."""
    functions = await connected.fetch("""
        select format('%s(%s) returns %s', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid))
        from pg_proc p where p.pronamespace = 'supervisor'::regnamespace
    """)
    columns = await connected.fetch("""
        select format('%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'supervisor'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
            and a.attnum > 0 and not a.attisdropped
    """)
    privileges = await connected.fetch("""
        select format(
            '%s on %s to %s', a.privilege_type, o.name,
            case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        )
        from (
            select n.nspname::text, n.nspacl from pg_namespace n where n.nspname = 'supervisor'
            union all
            select p.oid::regprocedure::text, p.proacl from pg_proc p where p.pronamespace = 'supervisor'::regnamespace
            union all
            select c.oid::regclass::text, c.relacl from pg_class c where c.relnamespace = 'supervisor'::regnamespace
        ) as o (name, acl) cross join aclexplode(o.acl) as a
    """)
    return Promises(*(frozenset(row[0] for row in rows) for rows in (functions, columns, privileges)))
