"""What `hold` writes down: a line for each commit, with its moment and the epoch it was made under."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Commit(NamedTuple):
    """A commit.

    Attributes:
        at_s: When it was done, CLOCK_MONOTONIC.
        epoch: Of the lease; of a holder without one, its process.
    """

    at_s: float
    epoch: int


class Record:
    """A record that grows; looking at it costs what is new in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> list[Commit]:
        """Return the commits since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as lines:
            lines.seek(self._read)
            # The last line may be under way.
            whole = lines.read().rpartition(b"\n")[0].splitlines(keepends=True)
        self._read += sum(map(len, whole)) + (1 if whole else 0)
        return [Commit(float(at_s), int(epoch)) for at_s, epoch in map(bytes.split, whole)]
