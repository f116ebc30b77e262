"""One shard of a projection: its name, and which events are its own; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Shard(NamedTuple):
    """One of the parts that a projection is split into, by stream.

    Attributes:
        projection: The projection's name.
        number: Which one it is, counted from 0.
        shards: How many there are.
    """

    projection: str
    number: int
    shards: int

    @property
    def label(self) -> str | None:
        """Which one it is, for people: `1of4`; None: it is the only one."""
        return None if self.shards == 1 else f"{self.number + 1}of{self.shards}"


class Layer(NamedTuple):
    """What was applied while the projection was laid out over another number of shards.

    Attributes:
        shards: How many there were.
        positions: How far each of them had come.
    """

    shards: int
    positions: tuple[int, ...]


def lease_name(projection: str, shard: int, shards: int) -> str:
    """Return the name of a shard's lease, as `supervisor.shard_leases` has it; `shard` counts from 0."""
    return projection if shards == 1 else f"{projection}/{shard + 1}of{shards}"


def is_applied(layers: Iterable[Layer], bucket: int, position: int) -> bool:
    """Whether an event was applied under an earlier layout."""
    return any(position <= layer.positions[bucket % layer.shards] for layer in layers)


def relevant(layers: Iterable[Layer], position: int) -> tuple[Layer, ...]:
    """Return the layers that say something about events after `position`."""
    return tuple(layer for layer in layers if max(layer.positions) > position)
