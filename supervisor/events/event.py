"""An event, as a projection is given it, and the events of one call of its handler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import starmap
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREVIEW_CHARS = 200


class Event:
    """Something that happened, at its position among all events.

    A batch has up to hundreds of events, and a handler may use only a few: the data are decoded when they are first
    used.

    Args:
        position: Its position; larger than that of every event that was applied before.
        stream: Which stream it belongs to.
        type: What happened, such as `placed`.
        data: The JSON object that was appended with it, or its text.
        at: When it was appended, by the server's clock.
    """

    __slots__ = ("_at", "_data", "_position", "_stream", "_type")

    def __init__(self, position: int, stream: str, type: str, data: dict[str, Any] | str, at: datetime) -> None:  # noqa: A002 - the contract's name
        self._position = position
        self._stream = stream
        self._type = type
        self._data = data
        self._at = at

    @property
    def position(self) -> int:
        """Its position among all events."""
        return self._position

    @property
    def stream(self) -> str:
        """Which stream it belongs to."""
        return self._stream

    @property
    def type(self) -> str:
        """What happened."""
        return self._type

    @property
    def data(self) -> dict[str, Any]:
        """The JSON object that was appended with it."""
        data = self._data
        if isinstance(data, str):
            data = self._data = _decode(data)
        return data

    @property
    def at(self) -> datetime:
        """When it was appended, by the server's clock."""
        return self._at

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        mine = (self._position, self._stream, self._type, self._at)
        return mine == (other._position, other._stream, other._type, other._at) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self._position)

    def __repr__(self) -> str:
        data = repr(self.data)
        if len(data) > _PREVIEW_CHARS:
            data = f"{data[:_PREVIEW_CHARS]}…"
        return (
            f"Event(position={self._position}, stream={self._stream!r}, type={self._type!r}, data={data},"
            f" at={self._at.isoformat(sep=' ')})"
        )


class LazyEvents(Sequence[Event]):
    """Rows of the log that become `Event` objects when they are first used, each once.

    A rebuild reads millions of events. Making all those objects takes a third of its time, and many handlers use only
    a few of them.

    Args:
        rows: Position, stream, type, data of each, and its time in seconds since 1970.
    """

    __slots__ = ("_all", "_rows", "_some")

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self._some: dict[int, Event] = {}
        self._all: list[Event] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...

    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        if isinstance(place, slice) or self._all is not None:
            return self._materialise()[place]
        at = place + len(self._rows) if place < 0 else place
        if at not in self._some:
            if at < 0:
                raise IndexError(f"there are {len(self._rows)} events, and none at {place}")
            self._some[at] = _event(*self._rows[at])
        return self._some[at]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._materialise())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return self._materialise() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._materialise())

    def _materialise(self) -> list[Event]:
        if self._all is None:
            self._all = list(starmap(_event, self._rows))
            for at, event in self._some.items():
                self._all[at] = event
        return self._all


def from_epoch_s(seconds: float) -> datetime:
    """Return the time that is `seconds` after the start of 1970 (UTC)."""
    return datetime.fromtimestamp(seconds, UTC)


def _event(position: int, stream: str, type_: str, data: str, seconds: float) -> Event:
    return Event(position, stream, type_, data, from_epoch_s(seconds))


def _decode(text: str) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(text)
    except ValueError:
        # The server's numbers have up to 131,072 digits; `int` stops at 4,300, which bounds what a hostile text costs.
        data = json.loads(text, parse_int=lambda digits: int(Decimal(digits)))
    return data
