"""An event as a handler sees it."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from supervisor import Event

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
    """An event whose data nobody looks at is never decoded."""
    broken = event("{")
    assert broken.position == 17
    with pytest.raises(ValueError, match="Expecting"):
        broken.data  # noqa: B018 - asking is the test


@pytest.mark.parametrize("name", ["position", "stream", "type", "data", "at", "other"])
def test_cannot_be_changed(name: str) -> None:
    """No attribute can be set or added."""
    with pytest.raises(AttributeError):
        setattr(event(), name, 1)


def test_is_equal_to_one_like_it() -> None:
    """Two with the same content are equal, also after a copy, and can be kept in a set."""
    assert event() == event('{"sum":12.0}') == copy.copy(event()) == pickle.loads(pickle.dumps(event()))
    assert event() != event("{}")
    assert event() != event(position=18)
    assert event() != "an event"
    assert len({event(), event(), event(position=18)}) == 2


def test_shows_itself_on_one_line_that_is_not_endless() -> None:
    """Its repr says everything, with the data cut where they are long."""
    assert repr(event()) == (
        "Event(position=17, stream='orders-1', type='placed', data={'sum': 12}, at=2026-11-21 09:30:00+00:00)"
    )
    assert len(repr(event({"text": "x" * 10_000}))) < 500
