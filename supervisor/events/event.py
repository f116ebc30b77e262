"""An event, as a projection is given it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

_SHOWN = 200


class Event:
    """Something that happened, at its place among all events.

    Five hundred are made for a batch, and a handler may look at a few of them only: the data are decoded when they
    are first asked for.

    Args:
        position: Its place; larger than that of every event that was applied before.
        stream: Which stream it belongs to.
        type: What happened, in the words of whoever appended it.
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
        """Its place among all events."""
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
            data = self._data = _decoded(data)
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
        if len(data) > _SHOWN:
            data = f"{data[:_SHOWN]}…"
        return (
            f"Event(position={self._position}, stream={self._stream!r}, type={self._type!r}, data={data},"
            f" at={self._at.isoformat(sep=' ')})"
        )


def _decoded(text: str) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(text)
    except ValueError:
        # The server's numbers have up to 131,072 digits; `int` stops at 4,300, which bounds what a hostile text costs.
        data = json.loads(text, parse_int=lambda digits: int(Decimal(digits)))
    return data
