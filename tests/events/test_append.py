"""`supervisor.append`: in the caller's transaction, on any connection, and clear about what cannot be stored."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.database_fixture import database_fixture
from support.schema import connection, make_schema

import supervisor
from supervisor import append
from supervisor.errors import InvalidEvent, SupervisorError
from supervisor.events.append import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Any]:
    """A connection to a database with the schema."""
    await make_schema(database)
    async with connection(database) as connected:
        yield connected


async def test_appends_in_the_callers_transaction(conn: Any) -> None:
    """What is appended is there with the commit, is gone with a rollback, and positions grow."""
    async with conn.transaction():
        first = await append(conn, "orders-1", "placed", {"sum": 12.5, "lines": ["a", None, True]})
        second = await append(conn, "orders-1", "paid", {})
    rolling_back = conn.transaction()
    await rolling_back.start()
    await append(conn, "orders-1", "never", {})
    await rolling_back.rollback()
    third = await append(conn, "orders-2", "placed", {})
    assert first < second < third
    rows = await conn.fetch("select position, stream, type, data from supervisor.event order by position")
    assert [tuple(row) for row in rows] == [
        (first, "orders-1", "placed", '{"sum": 12.5, "lines": ["a", null, true]}'),
        (second, "orders-1", "paid", "{}"),
        (third, "orders-2", "placed", "{}"),
    ]


async def test_works_whatever_codec_the_connection_has(conn: Any) -> None:
    """A connection that encodes jsonb by itself, as many do, stores the object and not a string."""
    await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    position = await append(conn, "a", "b", {"x": 'é "\\u0000" \U0001f600'})
    stored = await conn.fetchval("select data from supervisor.event where position = $1", position)
    assert stored == {"x": 'é "\\u0000" \U0001f600'}


async def test_works_on_what_a_worker_has(database: str) -> None:
    """A connection of `ctx.db` and `ctx.db` itself work too."""
    await make_schema(database)
    async with database_fixture(database) as house:
        db = house.view()
        async with db.acquire() as borrowed, borrowed.transaction():
            assert await append(borrowed, "a", "b", {}) == 2
        assert await append(db, "a", "b", {}) == 3


async def test_takes_one_round_trip(conn: Any) -> None:
    """One statement for each event, prepared once."""
    queries: list[str] = []
    await append(conn, "a", "b", {})
    conn.add_query_logger(lambda record: queries.append(record.query))
    for _ in range(3):
        await append(conn, "a", "b", {})
    await asyncio.sleep(0)  # asyncpg tells its loggers a turn later
    assert len(queries) == 3
    assert len(set(queries)) == 1


class Colour(StrEnum):
    RED = "red"


async def test_stores_what_json_can_say(conn: Any) -> None:
    """Subclasses, tuples, numbers as keys and the longest names are stored as JSON has them."""
    data = OrderedDict(colour=Colour.RED, pair=(1, 2), deep={"a": [{"b": {}}]}, big=10**100)
    position = await append(conn, "ü" * 500, "b" * 500, {**data, 7: "seven"})  # type: ignore[dict-item]  # as JSON does
    text = await conn.fetchval("select data::text from supervisor.event where position = $1", position)
    assert json.loads(text) == {
        "colour": "red", "pair": [1, 2], "deep": {"a": [{"b": {}}]}, "big": 10**100, "7": "seven"
    }  # fmt: skip


_LOOP: dict[str, Any] = {}
_LOOP["itself"] = _LOOP
_DEEP: dict[str, Any] = {}
for _ in range(50_000):
    _DEEP = {"a": _DEEP}


@pytest.mark.parametrize(
    ("stream", "type_", "data", "said"),
    [
        ("", "b", {}, "stream has 1 to 500 characters, this one has 0"),
        ("a" * 10_000, "b", {}, "stream has 1 to 500 characters, this one has 10000"),
        ("a", "b" * 501, {}, "type has 1 to 500 characters, this one has 501"),
        ("a\0", "b", {}, "stream contains the character NUL"),
        ("a", "\0", {}, "type contains the character NUL"),
        ("a", "\ud83d", {}, "type contains half a character"),
        (b"a", "b", {}, "stream is a str, this is of type bytes"),
        ("a", None, {}, "type is a str, this is None"),
        ("a", "b", None, "data is a dict, this is None"),
        ("a", "b", [1], "data is a dict, this is of type list"),
        ("a", "b", "{}", "data is a dict, this is of type str"),
        ("a", "b", {"x": float("nan")}, "data.x is nan, which JSON does not have"),
        ("a", "b", {"lines": [{}, {"price": float("inf")}]}, "data.lines[1].price is inf"),
        ("a", "b", {"a": ["x\0y"]}, "data.a[0] contains the character NUL (\\u0000)"),
        ("a", "b", {"a b": {"x\0": 1}}, "a key of data['a b'], 'x\\x00', contains the character NUL"),
        ("a", "b", {"a": "\udc80"}, "data.a contains half a character"),
        ("a", "b", {"at": datetime(2026, 1, 1, tzinfo=UTC)}, "data.at is of type datetime"),
        ("a", "b", {"a": {1, 2}}, "data.a is of type set"),
        ("a", "b", {(1, 2): 3}, "data has a key of type tuple"),
        ("a", "b", {"a": 10**5000}, "no JSON"),
        ("a", "b", _LOOP, "nested more than 500 levels deep, or contains itself"),
        ("a", "b", _DEEP, "nested more than 500 levels deep"),
    ],
)  # fmt: skip
async def test_says_what_cannot_be_stored_and_where(conn: Any, stream: Any, type_: Any, data: Any, said: str) -> None:
    """Nothing is sent, the error says what and where, and the transaction goes on."""
    async with conn.transaction():
        with pytest.raises(InvalidEvent) as caught:
            await append(conn, stream, type_, data)
        assert said in str(caught.value)
        assert isinstance(caught.value, SupervisorError)
        assert isinstance(caught.value, ValueError)
        assert await append(conn, "a", "b", {}) == 2


_TEXT = st.text(st.characters(codec=None, categories=None), max_size=5)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_TEXT, _JSON, max_size=4))
def test_whatever_is_let_through_can_be_sent_and_holds_no_nul(data: dict[str, Any]) -> None:
    """What passes the check is valid UTF-8 and the same data; what does not is refused with its place."""
    try:
        text = encode(data)
    except InvalidEvent as error:
        assert "data" in str(error)  # noqa: PT017 - refusing is one of two right outcomes
        return
    assert json.loads(text.encode()) == data
    assert "\0" not in repr(json.loads(text))


async def test_an_absent_schema_is_the_servers_error(database: str) -> None:
    """Without the schema the driver's own error passes through."""
    async with connection(database) as connected:
        with pytest.raises(asyncpg.InvalidSchemaNameError):
            await append(connected, "a", "b", {})


def test_the_public_names_are_there() -> None:
    """Everything that the package promises can be imported from it, and costs nothing before that."""
    for name in supervisor.__all__:
        assert getattr(supervisor, name) is not None
