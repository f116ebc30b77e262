"""The events of one call of a handler."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import starmap
from typing import TYPE_CHECKING, Any, overload

from supervisor.events.event import Event

if TYPE_CHECKING:
    from collections.abc import Iterator


class Batch(Sequence[Event]):
    """Rows of the log that become events when somebody looks at them, each of them once.

    A rebuild goes through millions of events, and making all those objects costs a third of it; many a handler looks
    at a few of them only.

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
            return self._made()[place]
        at = place + len(self._rows) if place < 0 else place
        if at not in self._some:
            if at < 0:
                raise IndexError(f"there are {len(self._rows)} events, and none at {place}")
            self._some[at] = _event(*self._rows[at])
        return self._some[at]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._made())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return self._made() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._made())

    def _made(self) -> list[Event]:
        if self._all is None:
            self._all = list(starmap(_event, self._rows))
            for at, event in self._some.items():
                self._all[at] = event
        return self._all


def moment(seconds: float) -> datetime:
    """Return the moment so many seconds after the beginning of 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def _event(position: int, stream: str, type_: str, data: str, seconds: float) -> Event:
    return Event(position, stream, type_, data, moment(seconds))
