"""Reading a shard's events: page by page, up to the horizon, bounded in bytes, each event once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.schema import connection, make_schema

from supervisor.events.reader import MAX_POSITIONS, Checkpoint, Reader, fetch_log_position
from supervisor.events.shard import PreviousSharding, Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Notebook:
    """A connection that returns rows of a log with given positions."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = positions
        self.asked: list[tuple[int, int, int]] = []

    async def fetch(self, query: str, after: int, upto: int, limit: int, *_: Any) -> list[Any]:
        self.asked.append((after, upto, limit))
        has_bucket = "e.bucket" in query
        rows = [(n, "s", "t", "{}", _AT.timestamp(), n) for n in self.positions if after < n <= upto]
        return [row if has_bucket else row[:5] for row in rows[:limit]]


async def test_a_reader_reads_page_by_page_and_never_beyond_the_horizon() -> None:
    """A page covers at most `MAX_POSITIONS` positions, and holds at most the rows that were asked for."""
    log = Notebook([*range(1, 11), 50_000])
    reader = Reader(Shard("view", 0, 1), (), batch=3)
    reader.seek(Checkpoint(0, 0))
    reader.horizon = 60_000
    positions = []
    while reader.read_position < reader.horizon:
        await reader.read(log)
        while reader.pending:
            events, position = reader.peek(3)
            positions += [event.position for event in events]
            assert positions[-1] <= position <= reader.horizon
            reader.advance(len(events))
    assert positions == [*range(1, 11), 50_000]
    assert reader.read_position == position == 60_000
    assert log.asked == [
        (0, MAX_POSITIONS, 12),
        (MAX_POSITIONS, 2 * MAX_POSITIONS, 12),
        (2 * MAX_POSITIONS, 60_000, 12),
    ]


async def test_a_page_that_is_full_ends_at_its_last_event() -> None:
    """What follows has not been read yet."""
    log = Notebook(range(1, 100))
    reader = Reader(Shard("view", 0, 1), (), batch=5)
    reader.seek(Checkpoint(10, 0))
    reader.horizon = 99
    await reader.read(log)
    assert (reader.pending, reader.read_position) == (20, 30)
    events, position = reader.peek(5)
    assert ([event.position for event in events], position) == ([11, 12, 13, 14, 15], 15)
    reader.advance(5)
    assert reader.peek(5)[1] == 20
    reader.seek(Checkpoint(12, 1))
    assert (reader.pending, reader.read_position, reader.horizon) == (0, 12, 12)


@pytest.mark.parametrize("previous", [(), (PreviousSharding(2, (1, 1_000)),)], ids=["one sharding", "an earlier one"])
async def test_a_page_of_large_events_is_bounded_by_its_bytes(
    database: str, previous: tuple[PreviousSharding, ...]
) -> None:
    """A page has at most so many bytes whatever the batch, at least one event, and no event is left out."""
    await make_schema(database)
    noise = "(select string_agg(md5(random()::text || m), '') from generate_series(1, $2 / 32) m)"
    append = f"select supervisor.append('s' || n, 't', jsonb_build_object('x', {noise})) from generate_series(1, $1) n"
    async with connection(database) as connected:
        for count, size in ((30, 32), (9, 600_000), (2, 5_000_000), (30, 32)):
            await connected.execute(append.replace("$1", str(count)).replace("$2", str(size)))
        reader = Reader(Shard("view", 0, 1), (), batch=500)
        reader.seek(Checkpoint(0, 0, previous))
        reader.horizon = await connected.fetchval("select supervisor.horizon()")
        positions, pages = [], []
        while reader.read_position < reader.horizon:
            await reader.read(connected)
            events, _ = reader.peek(10_000) if reader.pending else ((), 0)
            pages.append(sum(len(event.data["x"]) for event in events))
            positions += [event.position for event in events]
            reader.advance(len(events))
        unapplied = "where bucket % 2 = 0" if previous else ""
        rows = await connected.fetch(f"select position from supervisor.event {unapplied} order by 1")
        assert positions == [row["position"] for row in rows]
        assert max(pages) < 8_000_000
        assert len(pages) >= 4


async def test_what_an_earlier_sharding_applied_is_left_out() -> None:
    """Events up to the positions of an earlier sharding are not applied again."""
    log = Notebook(range(1, 21))
    reader = Reader(Shard("view", 0, 1), (), batch=10)
    reader.seek(Checkpoint(2, 0, (PreviousSharding(2, (8, 2)),)))
    reader.horizon = 20
    await reader.read(log)
    events, position = reader.peek(100)
    assert [event.position for event in events] == [3, 5, 7, *range(9, 21)]
    assert position == 20
    assert reader.oldest_at == _AT


async def test_a_log_of_small_events_is_read_without_summing_sizes(database: str) -> None:
    """The horizon comes with whether there may be a large event; the events read are the same either way."""
    await make_schema(database)
    async with connection(database) as connected:
        await connected.execute("select supervisor.append('s' || n, 't') from generate_series(1, 50) n")
        await connected.execute("select supervisor.reshard('view', 1)")
        shard = Shard("view", 0, 1)
        assert (await fetch_log_position(connected, shard)).may_be_large is False
        pages = []
        for may_be_large in (False, True):
            for previous in ((), (PreviousSharding(2, (30, 0)),)):
                reader = Reader(shard, ("s*",), batch=20)
                reader.seek(Checkpoint(0, 0, previous))
                reader.horizon, reader.may_be_large = 60, may_be_large
                await reader.read(connected)
                pages.append([tuple(event.position for event in reader.peek(100)[0]), reader.read_position])
        assert pages[:2] == pages[2:]
        assert pages[0] != pages[1]
        noise = "(select string_agg(md5(random()::text || m), '') from generate_series(1, 200) m)"
        await connected.execute(f"select supervisor.append('s', 't', jsonb_build_object('x', {noise}))")
        assert (await fetch_log_position(connected, shard)).may_be_large is True
