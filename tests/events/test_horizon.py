"""The horizon: a reader that goes no further loses nothing, whatever the writers do."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from support.schema import connection, make_schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HORIZON = "select supervisor.horizon()"
APPEND = "select supervisor.append('a', 'b')"


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Any]:
    """A connection to a database with the schema."""
    await make_schema(database)
    async with connection(database) as connected:
        yield connected


async def test_the_horizon_waits_for_the_first_event_of_a_log(conn: Any, database: str) -> None:
    """While the very first append is open, the horizon is below it."""
    before = await conn.fetchval(HORIZON)
    async with connection(database) as writer:
        async with writer.transaction():
            first = await writer.fetchval(APPEND)
            assert await conn.fetchval(HORIZON) == before < first
        assert await conn.fetchval(HORIZON) == first


async def test_waits_for_an_open_transaction_that_has_appended_and_for_no_other(conn: Any, database: str) -> None:
    """A later event is not read before an earlier append is decided; transactions that only read do not count."""
    async with connection(database) as slow, connection(database) as idle, idle.transaction(isolation="serializable"):
        await idle.fetchval("select count(*) from supervisor.event")
        await idle.execute("create temp table written as select 1")
        committed = await conn.fetchval(APPEND)
        assert await conn.fetchval(HORIZON) == committed
        async with slow.transaction():
            early = await slow.fetchval(APPEND)
            late = await conn.fetchval(APPEND)
            assert early < late
            # The naive reader goes on after the last one that it sees, and will never look at `early`.
            assert await conn.fetchval("select max(position) from supervisor.event") == late
            assert await conn.fetchval(HORIZON) == committed
        assert await conn.fetchval(HORIZON) == late


async def test_another_databases_appends_do_not_count(conn: Any, database: str) -> None:
    """Locks are the cluster's, the horizon is the database's."""
    name = await conn.fetchval("select current_database()")
    await conn.execute(f"create database {name}_twin template template0 strategy file_copy")
    twin_dsn = database.replace(f"/{name}", f"/{name}_twin")
    try:
        await make_schema(twin_dsn)
        async with connection(twin_dsn) as twin, twin.transaction():
            await twin.fetchval(APPEND)
            for _ in range(3):
                last = await conn.fetchval(APPEND)
            assert await conn.fetchval(HORIZON) == last
    finally:
        await conn.execute(f"drop database {name}_twin with (force)")


@pytest.mark.parametrize("last", [2**31 - 2, 2**32 - 2, 2**32 + 2**31 - 2, 5 * 2**32 - 2])
async def test_a_lock_names_32_bits_of_a_position_that_has_64(conn: Any, database: str, last: int) -> None:
    """After the low 32 bits have wrapped around, an older append still holds the horizon back."""
    await conn.execute(f"select setval('supervisor.event_position', {last})")
    async with connection(database) as slow, slow.transaction():
        assert await slow.fetchval(APPEND) == last + 1
        await conn.execute("select supervisor.append('a', 'b') from generate_series(1, 5)")
        assert await conn.fetchval(HORIZON) == last
    assert await conn.fetchval(HORIZON) == last + 6


class Log:
    """What writers have committed and what two kinds of readers have seen of it."""

    def __init__(self) -> None:
        self.committed: set[int] = set()
        self.rolled_back: set[int] = set()
        self.exact: list[int] = []
        self.naive: list[int] = []
        self.is_over = asyncio.Event()
        self.is_complete = asyncio.Event()

    @property
    def lost_by_the_naive(self) -> set[int]:
        """Return the positions that the naive reader has passed without reading them."""
        passed = self.naive[-1] if self.naive else 0
        return {position for position in self.committed if position <= passed} - set(self.naive)


async def write(dsn: str, log: Log, rng: Random, longest_pause_s: float) -> None:
    """Append in transactions of all kinds, until it is over."""
    async with connection(dsn) as conn:
        while not log.is_over.is_set():
            transaction = conn.transaction()
            await transaction.start()
            kept: set[int] = set()
            for _ in range(rng.randint(1, 4)):
                kept |= {await conn.fetchval(APPEND) for _ in range(rng.randint(1, 3))}
                if rng.random() < 0.3:
                    await conn.execute("savepoint part")
                    undone = {await conn.fetchval(APPEND) for _ in range(rng.randint(1, 3))}
                    if rng.random() < 0.7:
                        await conn.execute("rollback to savepoint part")
                        log.rolled_back |= undone
                    else:
                        kept |= undone
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.random() * longest_pause_s)
            if rng.random() < 0.8:
                await transaction.commit()
                log.committed |= kept
            else:
                await transaction.rollback()
                log.rolled_back |= kept


async def read(dsn: str, log: Log) -> None:
    """Read by the horizon, until everything has been committed and read."""
    checkpoint = 0
    async with connection(dsn) as conn:
        while True:
            was_complete = log.is_complete.is_set()
            horizon = await conn.fetchval(HORIZON)
            rows = await conn.fetch(
                "select position from supervisor.event where position > $1 and position <= $2"
                " order by position limit 50",
                checkpoint, horizon,
            )  # fmt: skip
            log.exact += [row["position"] for row in rows]
            checkpoint = rows[-1]["position"] if len(rows) == 50 else max(horizon, checkpoint)
            if was_complete and not rows:
                return


async def read_naively(dsn: str, log: Log) -> None:
    """Read what comes after the last position that was seen."""
    async with connection(dsn) as conn:
        while not log.is_over.is_set():
            last = log.naive[-1] if log.naive else 0
            rows = await conn.fetch("select position from supervisor.event where position > $1 order by 1", last)
            log.naive += [row["position"] for row in rows]
            await asyncio.sleep(0)


@pytest.mark.parametrize(("writers", "longest_pause_s"), [(16, 0.02), (2, 0.002)])
async def test_a_reader_within_the_horizon_misses_nothing(
    conn: Any, database: str, writers: int, longest_pause_s: float
) -> None:
    """With savepoints, rollbacks and pauses: every committed event once, in order; the naive reader loses some.

    Of sixteen writers one or the other always holds the horizon back; with two there are moments without any.
    """
    log = Log()
    async with asyncio.TaskGroup() as everybody:
        writing = [
            everybody.create_task(write(database, log, Random(n), longest_pause_s), name=f"writer {n}")
            for n in range(writers)
        ]
        everybody.create_task(read_naively(database, log))
        everybody.create_task(read(database, log))
        async with asyncio.timeout(60):
            while len(log.committed) < 2000 or not log.lost_by_the_naive:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
        log.is_over.set()
        await asyncio.wait(writing)
        log.is_complete.set()
    assert await conn.fetchval("select count(*) from supervisor.event") == len(log.committed)
    assert log.exact == sorted(log.committed)
    assert not log.rolled_back & set(log.exact)
    assert log.lost_by_the_naive
