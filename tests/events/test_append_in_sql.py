"""`supervisor.append` in SQL: what it locks, what it tells, and what it refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.schema import connection, make_schema

from supervisor import Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.postgres import Postgres

LOCKS = (
    "select count(*) from pg_locks where locktype = 'advisory' and classid = 1885827844"
    " and database = (select oid from pg_database where datname = current_database())"
)
APPEND = "select supervisor.append('orders-1', 'placed', '{\"a\": 1}')"


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Any]:
    """A connection to a database with the schema."""
    await make_schema(database)
    async with connection(database) as connected:
        yield connected


@pytest.fixture
async def other(conn: Any, database: str) -> AsyncIterator[Any]:  # noqa: ARG001 - the schema is there first
    """A second session."""
    async with connection(database) as connected:
        yield connected


async def test_a_bulk_append_takes_one_lock(conn: Any, other: Any) -> None:
    """A thousand events of one transaction cost one lock, which ends with it."""
    async with conn.transaction():
        await conn.execute("select supervisor.append('a', 'b') from generate_series(1, 500)")
        for _ in range(5):
            await conn.execute(APPEND)
        assert await other.fetchval(LOCKS) == 1
    assert await other.fetchval(LOCKS) == 0


async def test_a_savepoints_rollback_undoes_the_lock_and_the_memory_of_it(conn: Any, other: Any) -> None:
    """What was appended before a rollback to a savepoint does not keep the next append from locking."""
    async with conn.transaction():
        await conn.execute("savepoint one")
        await conn.execute(APPEND)
        assert await other.fetchval(LOCKS) == 1
        await conn.execute("rollback to savepoint one")
        assert await other.fetchval(LOCKS) == 0
        last = await conn.fetchval(APPEND)
        assert await other.fetchval(LOCKS) == 1
        assert await other.fetchval("select supervisor.horizon()") < last
        await conn.execute("savepoint two")
        await conn.execute(APPEND)
        await conn.execute("rollback to savepoint two")
        assert await other.fetchval(LOCKS) == 1
    rows = await conn.fetch("select position from supervisor.event")
    assert [row["position"] for row in rows] == [last]


async def test_an_exception_block_in_plpgsql_is_a_savepoint_too(conn: Any, other: Any) -> None:
    """A trigger or function that catches an error after its append leaves the lock as it should be."""
    async with conn.transaction():
        await conn.execute("""
            do $$ begin
                begin
                    perform supervisor.append('a', 'b');
                    raise exception 'no';
                exception when others then null;
                end;
            end $$
        """)
        assert await other.fetchval(LOCKS) == 0
        await conn.execute("do $$ begin perform supervisor.append('a', 'b'); end $$")
        assert await other.fetchval(LOCKS) == 1


@pytest.mark.parametrize("value", ["'1'", "'on'", "''", "(select pg_current_xact_id()::text)"])
async def test_a_sessions_set_cannot_switch_the_lock_off(conn: Any, other: Any, value: str) -> None:
    """Whatever a session has set before, its next transaction locks."""
    await conn.execute(f"select set_config('supervisor.appending', {value}, false)")
    async with conn.transaction():
        await conn.execute(APPEND)
        assert await other.fetchval(LOCKS) == 1
    async with conn.transaction():
        await conn.execute(APPEND)
        await conn.execute("reset all")
        await conn.execute(APPEND)
        assert await other.fetchval(LOCKS) >= 1


async def test_a_transaction_notifies_once(conn: Any, other: Any) -> None:
    """Many events, also over savepoints, are one notification, which comes with the commit."""
    heard: list[str] = []
    await other.add_listener("supervisor_event", lambda *said: heard.append(said[-1]))
    async with conn.transaction():
        await conn.execute("select supervisor.append('a', 'b') from generate_series(1, 100)")
        await conn.execute("savepoint one")
        await conn.execute(APPEND)
        await conn.execute("rollback to savepoint one")
        await conn.execute(APPEND)
        await other.execute("select 1")
        assert heard == []
    await conn.execute("notify supervisor_event, 'last'")
    async with asyncio.timeout(30):
        while "last" not in heard:  # noqa: ASYNC110 - the notification is what is waited for
            await asyncio.sleep(0.001)
    assert heard == ["", "last"]


async def test_a_rolled_back_transaction_does_not_notify(conn: Any, other: Any) -> None:
    """Neither a notification nor an event remains."""
    heard: list[str] = []
    await other.add_listener("supervisor_event", lambda *said: heard.append(said[-1]))
    rolling_back = conn.transaction()
    await rolling_back.start()
    await conn.execute(APPEND)
    await rolling_back.rollback()
    await conn.execute("notify supervisor_event, 'last'")
    async with asyncio.timeout(30):
        while "last" not in heard:  # noqa: ASYNC110 - the notification is what is waited for
            await asyncio.sleep(0.001)
    assert heard == ["last"]
    assert await other.fetchval("select count(*) from supervisor.event") == 0


async def test_a_prepared_transaction_needs_notifications_off(postgres: Postgres) -> None:
    """With `supervisor.notify` off an append can be prepared; the horizon waits for it, also after its session."""
    postgres.set_config("max_prepared_transactions", "5")
    postgres.restart()
    await make_schema(postgres.dsn())
    async with connection(postgres.dsn()) as reader:
        async with connection(postgres.dsn()) as writer:
            await writer.execute("begin")
            await writer.execute(APPEND)
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
                await writer.execute("prepare transaction 'loud'")
            await writer.execute("rollback; set supervisor.notify = off; begin")
            position = await writer.fetchval(APPEND)
            await writer.execute("prepare transaction 'quiet'")
        later = await reader.fetchval("select supervisor.append('b', 'c')")
        assert later > position
        assert await reader.fetchval("select supervisor.horizon()") < position
        postgres.restart()
    async with connection(postgres.dsn()) as reader:
        assert await reader.fetchval("select supervisor.horizon()") < position
        await reader.execute("commit prepared 'quiet'")
        assert await reader.fetchval("select supervisor.horizon()") >= later
        assert await reader.fetchval("select count(*) from supervisor.event") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'a', 'b', '[1]'", "an event's data is a JSON object, this is array"),
        ("'a', 'b', 'null'", "an event's data is a JSON object, this is null"),
        ("'a', 'b', null", "an event's data is a JSON object, this is null"),
        ("'a', 'b', '\"x\"'", "an event's data is a JSON object, this is string"),
        ("repeat('a', 10000), 'b'", "a stream's name has 1 to 500 characters, this one has 10000"),
        ("'', 'b'", "a stream's name has 1 to 500 characters, this one has 0"),
        ("null, 'b'", "a stream's name has 1 to 500 characters, this one has none"),
        ("'a', repeat('b', 501)", "an event's type has 1 to 500 characters, this one has 501"),
        ("'a', null", "an event's type has 1 to 500 characters, this one has none"),
        ("'a', 'b', '{\"x\": \"\\u0000\"}'", "unsupported Unicode escape sequence"),
        ("'a', 'b', (repeat('{\"x\":', 500) || '{}' || repeat('}', 500))::jsonb", "is nested less than 500 deep"),
        ("'a', 'b', ('{\"x\":' || repeat('[', 499) || '1' || repeat(']', 499) || '}')::jsonb", "nested less than 500"),
    ],
)
async def test_names_what_it_refuses(conn: Any, arguments: str, said: str) -> None:
    """Clients in any language get the same error, and nothing is stored."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await conn.execute(f"select supervisor.append({arguments})")
    assert said in str(caught.value)
    assert caught.value.sqlstate in {"22023", "22P05"}
    assert await conn.fetchval("select count(*) from supervisor.event") == 0


async def test_whatever_it_takes_python_can_read(conn: Any) -> None:
    """The deepest data and the longest number that SQL accepts can be read as an event."""
    deep = "('{\"x\":' || repeat('[', 498) || '1' || repeat(']', 498) || '}')::jsonb"
    for data in (deep, '\'{"x": 1e5000, "y": -1e400, "z": 1.5}\''):
        await conn.execute(f"select supervisor.append('a', 'b', {data})")
    one, two = await conn.fetch("select position, stream, type, data::text, at from supervisor.event order by position")
    assert str(Event(*one).data).count("[") == 498
    assert Event(*two).data == {"x": 10**5000, "y": -(10**400), "z": 1.5}


async def test_a_type_with_a_nul_does_not_reach_the_server(conn: Any) -> None:
    """PostgreSQL's text has no NUL: the server itself refuses it, and stores nothing."""
    with pytest.raises(asyncpg.CharacterNotInRepertoireError):
        await conn.fetchval("select supervisor.append('a', $1)", "b\0")
    assert await conn.fetchval("select count(*) from supervisor.event") == 0


async def test_name_lengths_count_characters(conn: Any) -> None:
    """Five hundred characters fit, however many bytes they take."""
    await conn.execute("select supervisor.append(repeat('\U0001f600', 500), repeat('é', 500))")
    assert await conn.fetchval("select length(stream) from supervisor.event") == 500


async def test_a_trigger_can_append(conn: Any) -> None:
    """A table's trigger appends with its row, named arguments included, and sees the position."""
    await conn.execute("""
        create table shop (id int, sum int);
        create function placed() returns trigger language plpgsql as $$ begin
            perform supervisor.append(stream => 'orders-' || new.id, type => 'placed', data => to_jsonb(new));
            return new;
        end $$;
        create trigger placed after insert on shop for each row execute function placed();
        insert into shop select n, n * 10 from generate_series(1, 3) n;
    """)
    rows = await conn.fetch("select stream, data->>'sum' as sum from supervisor.event order by position")
    assert [tuple(row) for row in rows] == [("orders-1", "10"), ("orders-2", "20"), ("orders-3", "30")]


@pytest.mark.parametrize("wal_level", ["minimal", "replica"])
async def test_no_position_is_given_twice_after_a_crash(postgres: Postgres, wal_level: str) -> None:
    """A server that crashes soon after the schema was made continues above the last position it gave."""
    postgres.set_config("max_wal_senders", "0")
    postgres.set_config("wal_level", wal_level)
    postgres.restart()
    await make_schema(postgres.dsn())
    before = [int(postgres.execute("select supervisor.append('a', 'b')")) for _ in range(3)]
    postgres.stop("immediate")
    postgres.start()
    assert before == [2, 3, 4]
    assert int(postgres.execute("select supervisor.append('a', 'b')")) > 4
