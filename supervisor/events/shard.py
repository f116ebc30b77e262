"""One shard of a projection: its name, and which events belong to it; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# `*` is any text, also none, and `?` one character; every character that is special in LIKE stands for itself.
_GLOB_AS_LIKE = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"})


class Shard(NamedTuple):
    """One of the parts into which a projection is split, by stream.

    Attributes:
        projection: The projection's name.
        number: The shard's number, counted from 0.
        shards: How many shards the projection has.
    """

    projection: str
    number: int
    shards: int

    @property
    def label(self) -> str | None:
        """The shard as people write it: `1of4`; None if it is the only one."""
        return None if self.shards == 1 else f"{self.number + 1}of{self.shards}"


class PreviousSharding(NamedTuple):
    """What was applied while the projection had another number of shards.

    Attributes:
        shards: How many shards it had.
        positions: The checkpoint of each of them.
    """

    shards: int
    positions: tuple[int, ...]


def lease_name(projection: str, shard: int, shards: int) -> str:
    """Return the name of a shard's lease, as `supervisor.shard_leases` has it; `shard` counts from 0."""
    return projection if shards == 1 else f"{projection}/{shard + 1}of{shards}"


def like_patterns(globs: Iterable[str]) -> list[str]:
    """Return the LIKE patterns for `streams`, one of which has to match; no glob means every stream."""
    return [glob.translate(_GLOB_AS_LIKE) for glob in globs] or ["%"]


def is_applied(previous: Iterable[PreviousSharding], bucket: int, position: int) -> bool:
    """Whether an event was applied under an earlier number of shards."""
    return any(position <= sharding.positions[bucket % sharding.shards] for sharding in previous)


def still_relevant(previous: Iterable[PreviousSharding], position: int) -> tuple[PreviousSharding, ...]:
    """Return the earlier shardings that applied events after `position`."""
    return tuple(sharding for sharding in previous if max(sharding.positions) > position)
