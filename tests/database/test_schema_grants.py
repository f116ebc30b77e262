"""The grants: which privileges a role needs that does not own the schema, and that a migration extends them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest
from support.schema import KNOWN, connection, make_schema, next_schema_folder, promises

from supervisor.database.schema.grants import APPEND_GRANTS, DAEMON_GRANTS, listed
from supervisor.database.schema.version import migration_files
from supervisor.errors import DatabaseAccessDenied

if TYPE_CHECKING:
    from support.postgres import Postgres

ROOT = Path(__file__).parents[2]
GRANTS = "; ".join(f"{grant} TO app" for grant in DAEMON_GRANTS)
# A later version of the schema: a table, a view and a function, and a function that daemons know is written anew.
NEXT = """
    create table supervisor.more (n int);
    create view supervisor.most as select max(n) from supervisor.more;
    create function supervisor.add_more(n int) returns int
    language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
        insert into supervisor.more values (n) returning n
    $$;
    create or replace function supervisor.head() returns bigint
    language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
        select s.last_value from supervisor.event_position s
    $$;
"""
ADDED = ("select from supervisor.more", "select from supervisor.most", "select supervisor.add_more(7)")
INCARNATION = UUID("5b3c4f1e-7a7e-4b53-9d0c-0f6b1f6a2c11")


@pytest.fixture
async def server(postgres: Postgres) -> Postgres:
    """A server with the schema, and with a role `app` that may do nothing yet."""
    await make_schema(postgres.dsn())
    postgres.add_user("app", "pw")
    return postgres


def app(server: Postgres) -> Any:
    """Connect as that role."""
    return connection(server.dsn(user="app", password="pw"))


async def functions(connected: Any) -> list[Any]:
    """Return the schema's functions."""
    rows: list[Any] = await connected.fetch("""
        select p.oid::regprocedure::text as signature, p.proname as name, p.prosecdef as as_owner,
            p.proconfig as settings, p.provolatile = 'i' as is_pure,
            array(select format_type(t, null) from unnest(p.proargtypes) t) as types
        from pg_proc p where p.pronamespace = 'supervisor'::regnamespace order by 1
    """)
    assert len(rows) > 15
    return rows


async def be_a_node(server: Postgres) -> None:
    """Do as the role `app` what a daemon does: be a node, hold a lease, write under it, append and read events."""
    async with app(server) as session, app(server) as work:
        lease = await session.fetchval("select id from supervisor.lease_ids('{lists}')")
        node = await session.fetchval(
            "select supervisor.join_node(null, 'app', 'host', 7, '0.1', $1, '{}')", datetime.now(UTC)
        )
        await session.execute("select supervisor.set_wanted_leases($1, $2)", node, [lease])
        assert await session.fetchval("select supervisor.try_lease_locks($1)", [lease]) == [lease]
        (taken,) = await work.fetch(
            "select * from supervisor.advance_epochs($1, '{lists}', $2, $3, 'app@host:7', $4)",
            [lease], session.get_server_pid(), node, INCARNATION,
        )  # fmt: skip
        look = await session.fetchrow("select * from supervisor.cluster_snapshot($1)", node)
        assert (look["is_registered"], look["leases"], look["holders"]) == (True, [lease], [node])
        await work.execute("select supervisor.reshard('lists', 1)")
        async with work.transaction():
            assert await work.fetchval("select supervisor.fence($1, $2, $3)", lease, taken["epoch"], INCARNATION)
            position = await work.fetchval("select supervisor.append('orders-1', 'placed')")
            assert position >= 2
        assert await work.fetchval("select supervisor.horizon()") == position
        for table in await tables(work, "rv"):
            await work.fetch(f"select * from {table}")
        await session.execute("select supervisor.release_leases($1, $2)", [lease], node)
        await session.execute("select supervisor.leave_node($1)", node)


async def test_the_three_grants_are_all_that_a_daemon_needs(server: Postgres) -> None:
    """USAGE, SELECT and EXECUTE are enough to be a node, hold a lease, write under it, append and read events."""
    server.execute(GRANTS)
    await be_a_node(server)


async def refusals(server: Postgres, user: str, statements: tuple[str, ...] = ADDED) -> list[str]:
    """Return the statements that a role may not run."""
    refused = []
    async with connection(server.dsn(user=user, password="pw")) as connected:
        for sql in statements:
            try:
                await connected.execute(sql)
            except asyncpg.InsufficientPrivilegeError:
                refused.append(sql)
    return refused


async def test_a_migration_grants_what_it_adds_to_daemons(server: Postgres, tmp_path: Path) -> None:
    """A role with the documented grants alone works on after an upgrade; other roles gain nothing and lose nothing."""
    server.execute(GRANTS)
    for name in ("web", "eyes", "nobody"):
        server.add_user(name, "pw")
    server.execute("; ".join(f"{grant} TO web" for grant in APPEND_GRANTS))
    server.execute("grant usage on schema supervisor to eyes; grant select on all tables in schema supervisor to eyes")
    async with connection(server.dsn()) as connected:
        before = await promises(connected)
    await make_schema(server.dsn(), folder=next_schema_folder(tmp_path, NEXT))
    assert await refusals(server, "app") == []
    await be_a_node(server)
    for name in ("web", "eyes", "nobody"):
        assert await refusals(server, name) == list(ADDED)
    assert await refusals(server, "web", ("select supervisor.append('a', 'b')",)) == []
    assert await refusals(server, "eyes", ("select from supervisor.event",)) == []
    async with connection(server.dsn()) as connected:
        assert before.broken_by(await promises(connected)) == []
        gained = (await promises(connected)).privileges - before.privileges
    assert {privilege for privilege in gained if not privilege.endswith(" to postgres")} == {
        "EXECUTE on supervisor.add_more(integer) to app",
        "SELECT on supervisor.more to app",
        "SELECT on supervisor.most to app",
    }


async def test_a_privilege_that_was_taken_away_is_not_given_back(server: Postgres, tmp_path: Path) -> None:
    """An administrator's REVOKE on an older function or table outlasts an upgrade, and so does a GRANT to PUBLIC."""
    server.execute(GRANTS)
    server.execute("""
        revoke execute on function supervisor.forget_projection from app;
        revoke select on supervisor.dead_letter from app;
        grant execute on function supervisor.append to public;
        grant usage on schema supervisor to public;
    """)
    server.add_user("nobody", "pw")
    await make_schema(server.dsn(), folder=next_schema_folder(tmp_path, NEXT))
    kept = ("select supervisor.forget_projection('x')", "select from supervisor.dead_letter")
    assert await refusals(server, "app", kept) == list(kept)
    assert await refusals(server, "app") == []
    assert await refusals(server, "nobody", ("select supervisor.append('a', 'b')", *ADDED)) == list(ADDED)


async def test_a_group_and_an_owner_are_granted_what_is_added(postgres: Postgres, tmp_path: Path) -> None:
    """Daemons that log in as a member of a granted group, or as the owner while another role migrates, work on."""
    postgres.add_user("app", "pw")
    postgres.add_user("member", "pw")
    postgres.execute('create role "the Daemons"; grant "the Daemons" to member')
    postgres.execute("create schema supervisor authorization app")
    await make_schema(postgres.dsn(user="app", password="pw"))
    postgres.execute("; ".join(f'{grant} TO "the Daemons"' for grant in DAEMON_GRANTS))
    await make_schema(postgres.dsn(), folder=next_schema_folder(tmp_path, NEXT))
    for name in ("app", "member"):
        assert await refusals(postgres, name) == []


async def test_a_refused_upgrade_names_who_can_do_it(server: Postgres, tmp_path: Path) -> None:
    """A role with the documented grants alone cannot upgrade the schema, and the error says what to run."""
    server.execute(GRANTS)
    folder = next_schema_folder(tmp_path, NEXT)
    remedy = "cannot be upgraded: permission denied.*Run `pgsupervisor migrate` with the login of a role that owns it"
    with pytest.raises(DatabaseAccessDenied, match=remedy):
        await make_schema(server.dsn(user="app", password="pw"), folder=folder)
    async with connection(server.dsn()) as connected:
        assert await connected.fetchval("select max(version) from supervisor.migration") == KNOWN


def test_the_documentation_has_these_grants() -> None:
    """The page for administrators names the grants that the errors name, for a daemon and for a role that appends."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for role, grants in (("app", DAEMON_GRANTS), ("web", APPEND_GRANTS)):
        statements = "\n".join(f"{grant} TO {role};" for grant in grants)
        assert any(statements in page.read_text("utf-8") for page in pages), statements
    assert listed(APPEND_GRANTS) == f"{APPEND_GRANTS[0]} and {APPEND_GRANTS[1]}"


def test_a_migration_neither_grants_nor_revokes() -> None:
    """Privileges are the migrator's matter: a file that grants or revokes would undo what administrators decided."""
    for file in migration_files():
        lines = [line for line in file.sql.splitlines() if not line.lstrip().startswith("--")]
        assert not re.search(r"\b(grant|revoke)\b", "\n".join(lines), re.IGNORECASE)


async def test_the_three_grants_reach_every_function(server: Postgres) -> None:
    """A daemon may call every function of the schema, even if the function refuses arguments without a meaning."""
    server.execute(GRANTS)
    async with app(server) as connected:
        for function in await functions(connected):
            try:
                await connected.execute(_call(function))
            except asyncpg.PostgresError as error:
                assert error.sqlstate != "42501", function["signature"]  # noqa: PT017 - any other error is as good


async def test_a_role_that_only_appends_can_do_nothing_else(server: Postgres) -> None:
    """With USAGE and EXECUTE on `append` a role appends, and can read, call and write nothing else."""
    server.execute("grant usage on schema supervisor to app; grant execute on function supervisor.append to app")
    async with app(server) as connected:
        assert await connected.fetchval("select supervisor.append('a', 'b', '{}')") == 2
        for table in await tables(connected):
            for sql in (f"select from {table}", f"delete from {table}", f"insert into {table} default values"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connected.execute(sql)
        for function in await functions(connected):
            if function["name"] != "append":
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connected.execute(_call(function))
        for sql in ("select nextval('supervisor.event_position')", "select last_value from supervisor.event_position"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connected.execute(sql)


async def test_only_the_functions_write(server: Postgres) -> None:
    """A daemon's role cannot change a row or draw a position directly."""
    server.execute(GRANTS)
    async with app(server) as connected:
        for table in await tables(connected):
            for sql in (f"delete from {table}", f"insert into {table} default values", f"truncate {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connected.execute(sql)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connected.execute("select setval('supervisor.event_position', 1)")


async def test_other_roles_can_do_nothing(server: Postgres) -> None:
    """PUBLIC has no privilege on the schema or on anything in it, so that a role without grants sees nothing."""
    async with app(server) as connected:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema supervisor"):
            await connected.execute("select supervisor.append('a', 'b')")
    # With USAGE on the schema too: nothing in it is granted to PUBLIC.
    server.execute("grant usage on schema supervisor to app")
    async with app(server) as connected:
        for table in await tables(connected, "rv"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connected.execute(f"select from {table}")
        for function in await functions(connected):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connected.execute(_call(function))


async def test_every_function_is_safe_for_any_caller(server: Postgres) -> None:
    """Each function runs as its owner with a fixed search path, in which the caller's temporary tables come last."""
    async with connection(server.dsn()) as connected:
        for function in await functions(connected):
            assert function["settings"] == ["search_path=pg_catalog, pg_temp"], function["signature"]
            assert function["as_owner"] or function["is_pure"], function["signature"]


async def tables(connected: Any, kinds: str = "r") -> list[str]:
    """Return the tables of the schema; with `rv` the views too."""
    rows = await connected.fetch(
        "select oid::regclass::text as name from pg_class"
        " where relnamespace = 'supervisor'::regnamespace and strpos($1, relkind::text) > 0",
        kinds,
    )
    assert len(rows) >= 7
    return [row["name"] for row in rows]


def _call(function: Any) -> str:
    nothing = ", ".join(f"null::{kind}" for kind in function["types"])
    return f"select supervisor.{function['name']}({nothing})"
