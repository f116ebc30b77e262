"""What a role needs that does not own the schema, and that it needs no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest
from support.schema import connection, make_schema

if TYPE_CHECKING:
    from support.postgres import Postgres

# As docs/how-to/least-privilege-roles.md has them.
GRANTS = """
    grant usage on schema supervisor to app;
    grant select on all tables in schema supervisor to app;
    grant execute on all functions in schema supervisor to app;
"""
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


async def test_the_three_grants_are_all_that_a_daemon_needs(server: Postgres) -> None:
    """USAGE, SELECT and EXECUTE are enough to be a node, hold a lease, write under it, append and read events."""
    server.execute(GRANTS)
    async with app(server) as session, app(server) as work:
        lease = await session.fetchval("select id from supervisor.lease_ids('{lists}')")
        node = await session.fetchval(
            "select supervisor.join_node(null, 'app', 'host', 7, '0.1', $1, '{}')", datetime.now(UTC)
        )
        await session.execute("select supervisor.set_wants($1, $2)", node, [lease])
        assert await session.fetchval("select supervisor.try_leases($1)", [lease]) == [lease]
        (taken,) = await work.fetch(
            "select * from supervisor.take_leases($1, '{lists}', $2, $3, 'app@host:7', $4)",
            [lease], session.get_server_pid(), node, INCARNATION,
        )  # fmt: skip
        look = await session.fetchrow("select * from supervisor.look($1)", node)
        assert (look["is_registered"], look["leases"], look["holders"]) == (True, [lease], [node])
        await work.execute("select supervisor.lay_out('lists', 1)")
        async with work.transaction():
            assert await work.fetchval("select supervisor.fence($1, $2, $3)", lease, taken["epoch"], INCARNATION)
            assert await work.fetchval("select supervisor.append('orders-1', 'placed')") == 2
        assert await work.fetchval("select supervisor.horizon()") == 2
        for table in await tables(work, "rv"):
            await work.fetch(f"select * from {table}")
        await session.execute("select supervisor.release_leases($1, $2)", [lease], node)
        await session.execute("select supervisor.leave_node($1)", node)


async def test_the_three_grants_reach_every_function(server: Postgres) -> None:
    """No function of the schema is out of a daemon's reach, whatever else it says to arguments without a meaning."""
    server.execute(GRANTS)
    async with app(server) as connected:
        for function in await functions(connected):
            try:
                await connected.execute(_call(function))
            except asyncpg.PostgresError as error:
                assert error.sqlstate != "42501", function["signature"]  # noqa: PT017 - any other error is as good


async def test_one_that_only_appends_can_do_nothing_else(server: Postgres) -> None:
    """With USAGE and EXECUTE on `append` a role appends, and neither reads nor calls nor writes anything."""
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


async def test_nobody_writes_but_through_the_functions(server: Postgres) -> None:
    """Even a daemon's role cannot change a row or draw a position by itself."""
    server.execute(GRANTS)
    async with app(server) as connected:
        for table in await tables(connected):
            for sql in (f"delete from {table}", f"insert into {table} default values", f"truncate {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connected.execute(sql)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connected.execute("select setval('supervisor.event_position', 1)")


async def test_everybody_else_may_do_nothing(server: Postgres) -> None:
    """PUBLIC has no privilege on the schema or on anything in it, so that a mere login sees nothing."""
    async with app(server) as connected:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema supervisor"):
            await connected.execute("select supervisor.append('a', 'b')")
    # Not only for want of USAGE on the schema: nothing in it is granted to PUBLIC either.
    server.execute("grant usage on schema supervisor to app")
    async with app(server) as connected:
        for table in await tables(connected, "rv"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connected.execute(f"select from {table}")
        for function in await functions(connected):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connected.execute(_call(function))


async def test_every_function_is_safe_to_be_called_by_anybody(server: Postgres) -> None:
    """Each runs as the owner with a search path of its own, in which the caller's temporary tables come last."""
    async with connection(server.dsn()) as connected:
        for function in await functions(connected):
            assert function["settings"] == ["search_path=pg_catalog, pg_temp"], function["signature"]
            assert function["as_owner"] or function["is_pure"], function["signature"]


async def tables(connected: Any, kinds: str = "r") -> list[str]:
    """Return the schema's tables; with `rv` the views too."""
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
