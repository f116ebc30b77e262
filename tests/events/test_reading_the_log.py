"""What belongs to the reading of the log: globs, shards, batches, the reader's windows, the bell, the lag."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.clock import FakeClock, settle
from support.schema import connection, make_schema

from supervisor.clock import SystemClock
from supervisor.events.batch import Batch, moment
from supervisor.events.bell import Bell
from supervisor.events.checkpoint import Checkpoint, look
from supervisor.events.event import Event
from supervisor.events.glob import like_patterns
from supervisor.events.lag import NONE, Lag, is_lagging, lag_of
from supervisor.events.reader import WINDOW, Reader
from supervisor.events.shard import Layer, Shard, is_applied, lease_name, relevant
from supervisor.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Sequence


def _like(pattern: str, text: str) -> bool:
    """PostgreSQL's LIKE."""
    if not pattern:
        return not text
    match pattern[0]:
        case "%":
            return any(_like(pattern[1:], text[n:]) for n in range(len(text) + 1))
        case "_":
            return bool(text) and _like(pattern[1:], text[1:])
        case "\\":
            return text[:1] == pattern[1] and _like(pattern[2:], text[1:])
        case _:
            return text[:1] == pattern[0] and _like(pattern[1:], text[1:])


@given(glob=st.text("ab*?%_\\", max_size=6), text=st.text("ab%_\\", max_size=6))
@example(glob="*", text="")
def test_a_glob_fits_what_it_fits_in_a_shell(glob: str, text: str) -> None:
    """`*` and `?`, and every other character for itself."""
    (pattern,) = like_patterns([glob])
    assert _like(pattern, text) == fnmatchcase(text, glob)


def test_no_glob_means_every_stream() -> None:
    """And so many globs so many patterns."""
    assert like_patterns(()) == ["%"]
    assert like_patterns(("a*", "b?")) == ["a%", "b_"]


async def test_the_names_of_leases_are_those_of_the_schema(database: str) -> None:
    """Python and SQL name the shards alike."""
    await make_schema(database)
    async with connection(database) as connected:
        for shards in (1, 2, 4, 12):
            names = await connected.fetchval("select supervisor.shard_leases('a-view', $1)", shards)
            assert names == [lease_name("a-view", shard, shards) for shard in range(shards)]


def test_a_shard_has_a_label_where_there_are_several() -> None:
    """Counted from 1, for people."""
    assert Shard("view", 0, 1).label is None
    assert Shard("view", 2, 4).label == "3of4"


def test_an_event_is_applied_when_any_layer_says_so() -> None:
    """Each layer by its own number of shards; a layer that is passed says nothing."""
    layers = (Layer(2, (10, 20)), Layer(3, (15, 5, 12)))
    assert is_applied(layers, 1, 20)  # shard 1 of 2
    assert is_applied(layers, 6, 15)  # shard 0 of 2 came to 10, shard 0 of 3 to 15
    assert not is_applied(layers, 4, 11)  # 0 of 2: 10, 1 of 3: 5
    assert not is_applied((), 4, 1)
    assert relevant(layers, 15) == (layers[0],)
    assert relevant(layers, 14) == layers
    assert relevant(layers, 20) == ()


_AT = datetime(2026, 1, 1, tzinfo=UTC)
_ROWS = [(n, f"s{n}", "t", f'{{"n": {n}}}', _AT.timestamp()) for n in range(5)]


def test_a_batch_is_a_sequence_of_events() -> None:
    """Length, places from both ends, slices, iteration, equality and `in`, like a list."""
    batch = Batch(_ROWS)
    events = [Event(*row[:4], _AT) for row in _ROWS]
    assert len(batch) == 5
    assert (batch[0], batch[-1], batch[2]) == (events[0], events[4], events[2])
    assert list(batch[1:3]) == events[1:3]
    assert list(batch) == events
    assert list(reversed(batch)) == events[::-1]
    assert batch == events
    assert batch != events[:4]
    assert batch != "abcde"
    assert events[3] in batch
    assert repr(batch) == repr(events)
    assert not Batch([])
    for place in (5, -6):
        with pytest.raises(IndexError):
            _ = Batch(_ROWS)[place]
        with pytest.raises(IndexError):
            _ = batch[place]


def test_an_event_of_a_batch_is_always_the_same_object() -> None:
    """Whether it was asked for by its place or met in a loop: its data are decoded once."""
    batch = Batch(_ROWS)
    one = batch[1]
    one.data["added"] = True
    assert batch[1] is one
    assert next(event for event in batch if event.position == 1) is one
    assert batch[-4] is one
    assert batch[1:2][0] is one


class Notebook:
    """Stands where a connection does, and returns rows of a log of given positions."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = positions
        self.asked: list[tuple[int, int, int]] = []

    async def fetch(self, query: str, after: int, upto: int, limit: int, *_: Any) -> list[Any]:
        self.asked.append((after, upto, limit))
        has_bucket = "e.bucket" in query
        rows = [(n, "s", "t", "{}", _AT.timestamp(), n) for n in self.positions if after < n <= upto]
        return [row if has_bucket else row[:5] for row in rows[:limit]]


async def test_a_reader_goes_on_in_windows_and_never_beyond_the_horizon() -> None:
    """Where there is nothing, a window at a time; where there is much, as much as was asked for."""
    log = Notebook([*range(1, 11), 50_000])
    reader = Reader(Shard("view", 0, 1), (), batch=3)
    reader.begin(Checkpoint(0, 0))
    reader.horizon = 60_000
    positions = []
    while reader.read_upto < reader.horizon:
        await reader.read(log)
        while reader.pending:
            events, position = reader.peek(3)
            positions += [event.position for event in events]
            assert positions[-1] <= position <= reader.horizon
            reader.advance(len(events))
    assert positions == [*range(1, 11), 50_000]
    assert reader.read_upto == position == 60_000
    assert log.asked == [(0, WINDOW, 12), (WINDOW, 2 * WINDOW, 12), (2 * WINDOW, 60_000, 12)]


async def test_a_page_that_is_full_ends_at_its_last_event() -> None:
    """What comes behind it has not been looked at."""
    log = Notebook(range(1, 100))
    reader = Reader(Shard("view", 0, 1), (), batch=5)
    reader.begin(Checkpoint(10, 0))
    reader.horizon = 99
    await reader.read(log)
    assert (reader.pending, reader.read_upto) == (20, 30)
    events, position = reader.peek(5)
    assert ([event.position for event in events], position) == ([11, 12, 13, 14, 15], 15)
    reader.advance(5)
    assert reader.peek(5)[1] == 20
    reader.begin(Checkpoint(12, 1))
    assert (reader.pending, reader.read_upto, reader.horizon) == (0, 12, 12)


@pytest.mark.parametrize("layers", [(), (Layer(2, (1, 1_000)),)], ids=["one layout", "an earlier one"])
async def test_a_page_of_large_events_is_bounded_by_its_bytes(database: str, layers: tuple[Layer, ...]) -> None:
    """Whatever the batch, so much is read at once and no more, never less than one event, and none is passed over."""
    await make_schema(database)
    noise = "(select string_agg(md5(random()::text || m), '') from generate_series(1, $2 / 32) m)"
    append = f"select supervisor.append('s' || n, 't', jsonb_build_object('x', {noise})) from generate_series(1, $1) n"
    async with connection(database) as connected:
        for count, size in ((30, 32), (9, 600_000), (2, 5_000_000), (30, 32)):
            await connected.execute(append.replace("$1", str(count)).replace("$2", str(size)))
        reader = Reader(Shard("view", 0, 1), (), batch=500)
        reader.begin(Checkpoint(0, 0, layers))
        reader.horizon = await connected.fetchval("select supervisor.horizon()")
        positions, pages = [], []
        while reader.read_upto < reader.horizon:
            await reader.read(connected)
            events, _ = reader.peek(10_000) if reader.pending else ((), 0)
            pages.append(sum(len(event.data["x"]) for event in events))
            positions += [event.position for event in events]
            reader.advance(len(events))
        unapplied = "where bucket % 2 = 0" if layers else ""
        rows = await connected.fetch(f"select position from supervisor.event {unapplied} order by 1")
        assert positions == [row["position"] for row in rows]
        assert max(pages) < 8_000_000
        assert len(pages) >= 4


async def test_what_an_earlier_layout_applied_is_left_out() -> None:
    """By the layers of the checkpoint, until they are passed."""
    log = Notebook(range(1, 21))
    reader = Reader(Shard("view", 0, 1), (), batch=10)
    reader.begin(Checkpoint(2, 0, (Layer(2, (8, 2)),)))
    reader.horizon = 20
    await reader.read(log)
    events, position = reader.peek(100)
    assert [event.position for event in events] == [3, 5, 7, *range(9, 21)]
    assert position == 20
    assert reader.oldest_at == _AT


async def test_the_bell_wakes_who_waits() -> None:
    """By a notification, by a log that has grown, and by the stop; not by a look that shows nothing new."""
    bell, stop, clock = Bell(), StopSignal(), SystemClock()

    class Seen:
        head = 7

    async def woken_by(cause: Any) -> None:
        waiting = asyncio.ensure_future(bell.wait(bell.rings, bell.head, stop=stop, clock=clock))
        await settle()
        assert not waiting.done()
        bell.look(Seen())
        cause()
        async with asyncio.timeout(5):
            assert await waiting

    bell.look(Seen())
    await woken_by(bell.ring)
    await woken_by(lambda: bell.ring("payload"))

    def grow() -> None:
        Seen.head += 1
        bell.look(Seen())

    await woken_by(grow)
    await woken_by(stop.set)
    # A log that is shorter, after a fail-over, is not new; that it grows from there is.
    stop = StopSignal()
    Seen.head = 3
    bell.look(Seen())
    await woken_by(grow)


async def test_what_rang_before_the_wait_counts() -> None:
    """A notification between the reading and the waiting is not missed."""
    bell, stop, clock = Bell(), StopSignal(), FakeClock()
    rings = bell.rings
    bell.ring()
    assert await bell.wait(rings, 0, stop=stop, clock=clock)
    bell.head = 9
    assert await bell.wait(bell.rings, 8, stop=stop, clock=clock)


async def test_a_wait_with_a_limit_ends_with_it() -> None:
    """Then it says that nothing has happened."""
    bell, stop, clock = Bell(), StopSignal(), FakeClock()
    waiting = asyncio.ensure_future(bell.wait(bell.rings, 0, stop=stop, clock=clock, limit_s=0.5))
    assert await clock.next_sleep() == 0.5
    await clock.jump(0.5)
    assert await waiting is False


def test_a_lag_counts_what_is_known_and_estimates_the_rest() -> None:
    """Nothing pending and nothing unread is no lag, however long ago the last event was."""
    assert lag_of(pending=0, unread=0, density=1.0, waited_s=99.0) == NONE
    assert lag_of(pending=0, unread=-5, density=1.0, waited_s=99.0) == NONE
    assert lag_of(pending=3, unread=-5, density=1.0, waited_s=1.5) == Lag(3, 1.5)
    assert lag_of(pending=3, unread=1000, density=0.25, waited_s=2.0) == Lag(253, 2.0)
    assert lag_of(pending=1, unread=0, density=1.0, waited_s=-0.2) == Lag(1, 0.0)


@pytest.mark.parametrize(
    ("seconds", "was_lagging", "warning_s", "lags"),
    [(59.9, False, 60.0, False), (60.0, False, 60.0, True), (31.0, True, 60.0, True), (29.9, True, 60.0, False),
     (1e9, False, 0.0, False), (1e9, True, 0.0, False)],
)  # fmt: skip
def test_a_lag_is_told_from_the_warning_on_until_it_is_half_of_that(
    seconds: float, was_lagging: bool, warning_s: float, lags: bool
) -> None:
    """So that one which stays about there does not come and go."""
    assert is_lagging(Lag(1, seconds), was_lagging=was_lagging, warning_s=warning_s) is lags


async def test_a_log_of_small_events_is_read_without_adding_up(database: str) -> None:
    """Whether there may be a large one is asked with the horizon; what is read is the same either way."""
    await make_schema(database)
    async with connection(database) as connected:
        await connected.execute("select supervisor.append('s' || n, 't') from generate_series(1, 50) n")
        await connected.execute("select supervisor.lay_out('view', 1)")
        shard = Shard("view", 0, 1)
        assert (await look(connected, shard)).may_be_large is False
        pages = []
        for may_be_large in (False, True):
            for layers in ((), (Layer(2, (30, 0)),)):
                reader = Reader(shard, ("s*",), batch=20)
                reader.begin(Checkpoint(0, 0, layers))
                reader.horizon, reader.may_be_large = 60, may_be_large
                await reader.read(connected)
                pages.append([tuple(event.position for event in reader.peek(100)[0]), reader.read_upto])
        assert pages[:2] == pages[2:]
        assert pages[0] != pages[1]
        noise = "(select string_agg(md5(random()::text || m), '') from generate_series(1, 200) m)"
        await connected.execute(f"select supervisor.append('s', 't', jsonb_build_object('x', {noise}))")
        assert (await look(connected, shard)).may_be_large is True


async def test_a_time_is_read_to_the_microsecond(database: str) -> None:
    """As PostgreSQL has it, for every moment of three centuries."""
    times = "select timestamptz '1970-01-01 UTC' + random() * interval '270 years' as at from generate_series(1, 20000)"
    async with connection(database) as connected:
        for at, seconds in await connected.fetch(f"select at, date_part('epoch', at) from ({times}) t"):
            assert moment(seconds) == at
