"""An event, and a batch of them, as a handler sees them."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from support.schema import connection

from supervisor import Event
from supervisor.events.event import LazyEvents, from_epoch_s

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def event(data: Any = '{"sum": 12}', position: int = 17) -> Event:
    return Event(position, "orders-1", "placed", data, AT)


def test_has_what_was_appended() -> None:
    """Position, stream, type, data and time, whether the data came as text or as an object."""
    one = event()
    assert (one.position, one.stream, one.type, one.data, one.at) == (17, "orders-1", "placed", {"sum": 12}, AT)
    assert one.data is one.data
    assert event({"sum": 12}) == one


def test_decodes_its_data_when_they_are_asked_for() -> None:
    """Data that are never used are never decoded."""
    broken = event("{")
    assert broken.position == 17
    with pytest.raises(ValueError, match="Expecting"):
        broken.data  # noqa: B018 - asking is the test


@pytest.mark.parametrize("name", ["position", "stream", "type", "data", "at", "other"])
def test_cannot_be_changed(name: str) -> None:
    """No attribute can be set or added."""
    with pytest.raises(AttributeError):
        setattr(event(), name, 1)


def test_equality() -> None:
    """Two events with the same content are equal, also after a copy, and have the same hash."""
    assert event() == event('{"sum":12.0}') == copy.copy(event()) == pickle.loads(pickle.dumps(event()))
    assert event() != event("{}")
    assert event() != event(position=18)
    assert event() != "an event"
    assert len({event(), event(), event(position=18)}) == 2


def test_the_repr_is_one_line_of_bounded_length() -> None:
    """It shows all attributes, and cuts long data."""
    assert repr(event()) == (
        "Event(position=17, stream='orders-1', type='placed', data={'sum': 12}, at=2026-11-21 09:30:00+00:00)"
    )
    assert len(repr(event({"text": "x" * 10_000}))) < 500


_AT = datetime(2026, 1, 1, tzinfo=UTC)
_ROWS = [(n, f"s{n}", "t", f'{{"n": {n}}}', _AT.timestamp()) for n in range(5)]


def test_a_batch_is_a_sequence_of_events() -> None:
    """Length, indexes from both ends, slices, iteration, equality and `in` work as in a list."""
    batch = LazyEvents(_ROWS)
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
    assert not LazyEvents([])
    for place in (5, -6):
        with pytest.raises(IndexError):
            _ = LazyEvents(_ROWS)[place]
        with pytest.raises(IndexError):
            _ = batch[place]


def test_an_event_of_a_batch_is_always_the_same_object() -> None:
    """By index or in a loop, it is the same object, and its data are decoded once."""
    batch = LazyEvents(_ROWS)
    one = batch[1]
    one.data["added"] = True
    assert batch[1] is one
    assert next(event for event in batch if event.position == 1) is one
    assert batch[-4] is one
    assert batch[1:2][0] is one


async def test_a_time_is_read_to_the_microsecond(database: str) -> None:
    """The time is the one PostgreSQL has, for nearly three centuries."""
    times = "select timestamptz '1970-01-01 UTC' + random() * interval '270 years' as at from generate_series(1, 20000)"
    async with connection(database) as connected:
        for at, seconds in await connected.fetch(f"select at, date_part('epoch', at) from ({times}) t"):
            assert from_epoch_s(seconds) == at
