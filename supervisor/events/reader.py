"""Reads the events of one shard in their order, once each, and only those that are decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.events.batch import Batch, moment
from supervisor.events.glob import like_patterns
from supervisor.events.shard import is_applied, relevant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from supervisor.events.checkpoint import Checkpoint
    from supervisor.events.shard import Shard

# One statement looks at no more positions than this: where a shard's events are rare it would scan the whole table.
WINDOW = 20_000
# Several small batches are read at once, as long as they are small.
_PAGE = 2_000
_PAGE_BATCHES = 4
# And no more than this, as the server stores it (compressed, where it is large), or a page of large events would take
# all memory there is, and longer to arrive than a statement may. An event that is larger comes alone. Adding up costs a
# fifth of the reading, so that it is left out where no event is large enough to be stored out of line.
_PAGE_BYTES = 2_000_000
# Data beyond that are left out; in what is left of such a row nothing is large.
_BOUNDED_DATA = f"""
    CASE WHEN sum(pg_column_size(e.data)) OVER (ORDER BY e.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        >= {_PAGE_BYTES} THEN NULL ELSE e.data::text END
"""
# As text: a worker may have set a codec of its own for jsonb on the connection, for good.
_DATA = "e.data::text"
# Exact to the microsecond until 2242. Making a datetime takes the driver as long as all the rest of a row, and most of
# those that a rebuild passes nobody looks at.
_SECONDS = "date_part('epoch', e.at)"
# The columns that are read, by their places.
_POSITION, _TEXT, _AT, _BUCKET = 0, 3, 4, 5


class Reader:
    """A window that moves over the log.

    Attributes:
        read_upto: Every event up to here has been read.
        horizon: Every event up to here can be read; what lies there never changes, so nobody asks twice.
        may_be_large: Whether there may be a large event among them.
    """

    __slots__ = (
        "_arguments",
        "_conditions",
        "_cursor",
        "_layers",
        "_limit",
        "_matched",
        "_page",
        "_scanned",
        "horizon",
        "may_be_large",
        "read_upto",
    )

    def __init__(self, shard: Shard, streams: Sequence[str], *, batch: int) -> None:
        conditions = "e.position > $1 AND e.position <= $2"
        self._arguments: tuple[Any, ...] = ()
        if streams:
            conditions += " AND e.stream LIKE ANY ($4::text[])"
            self._arguments = (like_patterns(streams),)
        if shard.shards > 1:
            conditions += f" AND e.bucket % {shard.shards} = {shard.number}"
        self._conditions = conditions
        self._limit = max(batch, min(batch * _PAGE_BATCHES, _PAGE))
        self._scanned = self._matched = 0
        self._page: list[Any] = []
        self._cursor = 0
        self._layers: tuple[Any, ...] = ()
        self.read_upto = self.horizon = 0
        self.may_be_large = True

    def begin(self, checkpoint: Checkpoint) -> None:
        """Go to a checkpoint, and forget what was read."""
        self._page, self._cursor = [], 0
        self.read_upto = self.horizon = checkpoint.position
        self._layers = checkpoint.layers

    @property
    def pending(self) -> int:
        """How many events have been read and not passed."""
        return len(self._page) - self._cursor

    @property
    def oldest_at(self) -> datetime | None:
        """When the first of them was appended."""
        return moment(self._page[self._cursor][_AT]) if self.pending else None

    @property
    def density(self) -> float:
        """Of a hundred positions, how many held an event to apply until now, as a fraction of 1."""
        return self._matched / self._scanned if self._scanned else 1.0

    def peek(self, size: int) -> tuple[Batch, int]:
        """Return the next events, at most `size`, and the position that is reached with them."""
        end = self._cursor + size
        rows = self._page[self._cursor : end]
        return Batch(rows), self.read_upto if end >= len(self._page) else rows[-1][_POSITION]

    def advance(self, count: int) -> None:
        """Pass the next `count` events."""
        self._cursor += count

    async def read(self, connection: Any) -> None:
        """Read on by a window; what was read before has been passed."""
        after, upto = self.read_upto, min(self.horizon, self.read_upto + WINDOW)
        self._layers = relevant(self._layers, after)
        rows = await connection.fetch(self._query(), after, upto, self._limit, *self._arguments)
        is_full = len(rows) == self._limit
        if rows and rows[-1][_TEXT] is None:
            rows, is_full = [row for row in rows if row[_TEXT] is not None], True
        self._page, self._cursor = self._unapplied(rows), 0
        self.read_upto = rows[-1][_POSITION] if is_full else upto
        self._scanned += self.read_upto - after
        self._matched += len(rows)

    def _query(self) -> str:
        data = _BOUNDED_DATA if self.may_be_large else _DATA
        columns = f"e.position, e.stream, e.type, {data}, {_SECONDS}" + (", e.bucket" if self._layers else "")
        table = f"supervisor.event e WHERE {self._conditions}"
        return f"SELECT {columns} FROM {table} ORDER BY e.position LIMIT $3"  # noqa: S608 - of our own words and numbers

    def _unapplied(self, rows: list[Any]) -> list[Any]:
        layers = self._layers
        if not layers:
            return rows
        return [row[:_BUCKET] for row in rows if not is_applied(layers, row[_BUCKET], row[_POSITION])]
