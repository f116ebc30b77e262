"""Reads a shard's checkpoint, how far the log can be read, and the shard's events in order, each once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.events.event import LazyEvents, from_epoch_s
from supervisor.events.shard import PreviousSharding, is_applied, like_patterns, still_relevant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from supervisor.events.shard import Shard

_LOAD = """
    SELECT p.shards, c.position, c.revision, c.previous_shardings::text AS previous
    FROM supervisor.projection p
    LEFT JOIN supervisor.checkpoint c ON c.projection = p.name AND c.shard = $2 AND c.shards = $3
    WHERE p.name = $1
"""
# The horizon is asked for in a statement of its own: the events have to be read by a later one.
_LOG_POSITION = """
    SELECT supervisor.horizon() AS horizon, supervisor.head() AS head, clock_timestamp() AS now, c.revision,
        supervisor.may_hold_large_events() AS may_be_large
    FROM (SELECT) AS always
    LEFT JOIN supervisor.checkpoint c ON c.projection = $1 AND c.shard = $2 AND c.shards = $3
"""
# One statement covers no more positions than this: where a shard's events are rare it would scan the whole table.
MAX_POSITIONS = 20_000
# Several small batches are read at once.
_MAX_ROWS = 2_000
_MAX_BATCHES = 4
# The limit of one page in bytes, as the server stores them (compressed, if large): a page of large events would take
# all memory, and longer to arrive than a statement may. A larger event is read alone. The sum costs a fifth of the
# reading, so it is left out where no event is large enough to be stored out of line.
_MAX_BYTES = 2_000_000
# Data beyond the limit are left out; the rest of such a row is small.
_BOUNDED_DATA = f"""
    CASE WHEN sum(pg_column_size(e.data)) OVER (ORDER BY e.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        >= {_MAX_BYTES} THEN NULL ELSE e.data::text END
"""
# As text: a worker may have set a codec of its own for jsonb on the connection, for good.
_DATA = "e.data::text"
# Exact to the microsecond until 2242. The driver needs as long for a datetime as for the rest of the row, and most of
# them are never used in a rebuild.
_SECONDS = "date_part('epoch', e.at)"
# The columns of a row, by index.
_POSITION, _TEXT, _AT, _BUCKET = 0, 3, 4, 5


class Checkpoint(NamedTuple):
    """A shard's checkpoint.

    Attributes:
        position: Every event of the shard up to here has been applied.
        revision: Grows with each change, whoever makes it.
        previous: What earlier shardings had applied beyond it.
    """

    position: int
    revision: int
    previous: tuple[PreviousSharding, ...] = ()


class MissingCheckpoint(NamedTuple):
    """There is no checkpoint for this shard.

    Attributes:
        shards: How many shards the projection has in the database; 0: the projection is not there.
    """

    shards: int


class LogPosition(NamedTuple):
    """How far the log can be read, and where it ends.

    Attributes:
        horizon: Every event up to here is decided, and can be read from now on.
        head: The last position that was drawn from the sequence.
        revision: The checkpoint's; None: the shard has no checkpoint.
        now: The server's clock.
        may_be_large: Whether there may be a large event up to the horizon.
    """

    horizon: int
    head: int
    revision: int | None
    now: datetime
    may_be_large: bool = True

    @property
    def has_open_writers(self) -> bool:
        """Whether an open transaction has appended; if it rolls back, no notification says so."""
        return self.horizon < self.head


async def load_checkpoint(connection: Any, shard: Shard) -> Checkpoint | MissingCheckpoint:
    """Return a shard's checkpoint."""
    row = await connection.fetchrow(_LOAD, *shard)
    if row is None:
        return MissingCheckpoint(0)
    if row["position"] is None:
        return MissingCheckpoint(row["shards"])
    previous = (PreviousSharding(item["shards"], tuple(item["positions"])) for item in json.loads(row["previous"]))
    return Checkpoint(row["position"], row["revision"], tuple(previous))


async def fetch_log_position(connection: Any, shard: Shard) -> LogPosition:
    """Return how far the log can be read now."""
    row = await connection.fetchrow(_LOG_POSITION, *shard)
    return LogPosition(row["horizon"], row["head"], row["revision"], row["now"], row["may_be_large"])


class Reader:
    """Reads a shard's events page by page.

    Attributes:
        read_position: Every event up to here has been read.
        horizon: Every event up to here can be read; what lies there never changes, so it is read once.
        may_be_large: Whether there may be a large event among them.
    """

    __slots__ = (
        "_arguments",
        "_conditions",
        "_cursor",
        "_limit",
        "_matched",
        "_previous",
        "_rows",
        "_scanned",
        "horizon",
        "may_be_large",
        "read_position",
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
        self._limit = max(batch, min(batch * _MAX_BATCHES, _MAX_ROWS))
        self._scanned = self._matched = 0
        self._rows: list[Any] = []
        self._cursor = 0
        self._previous: tuple[PreviousSharding, ...] = ()
        self.read_position = self.horizon = 0
        self.may_be_large = True

    def seek(self, checkpoint: Checkpoint) -> None:
        """Go to a checkpoint, and forget what was read."""
        self._rows, self._cursor = [], 0
        self.read_position = self.horizon = checkpoint.position
        self._previous = checkpoint.previous

    @property
    def pending(self) -> int:
        """How many events have been read and not passed."""
        return len(self._rows) - self._cursor

    @property
    def oldest_at(self) -> datetime | None:
        """When the first of them was appended."""
        return from_epoch_s(self._rows[self._cursor][_AT]) if self.pending else None

    @property
    def match_ratio(self) -> float:
        """The share of the positions read so far that held an event to apply, from 0 to 1."""
        return self._matched / self._scanned if self._scanned else 1.0

    def peek(self, size: int) -> tuple[LazyEvents, int]:
        """Return the next events, at most `size`, and the position that is reached with them."""
        end = self._cursor + size
        rows = self._rows[self._cursor : end]
        return LazyEvents(rows), self.read_position if end >= len(self._rows) else rows[-1][_POSITION]

    def advance(self, count: int) -> None:
        """Pass the next `count` events."""
        self._cursor += count

    async def read(self, connection: Any) -> None:
        """Read the next page; the page before has been passed."""
        after, upto = self.read_position, min(self.horizon, self.read_position + MAX_POSITIONS)
        self._previous = still_relevant(self._previous, after)
        rows = await connection.fetch(self._query(), after, upto, self._limit, *self._arguments)
        is_full = len(rows) == self._limit
        if rows and rows[-1][_TEXT] is None:
            rows, is_full = [row for row in rows if row[_TEXT] is not None], True
        self._rows, self._cursor = self._unapplied(rows), 0
        self.read_position = rows[-1][_POSITION] if is_full else upto
        self._scanned += self.read_position - after
        self._matched += len(rows)

    def _query(self) -> str:
        data = _BOUNDED_DATA if self.may_be_large else _DATA
        columns = f"e.position, e.stream, e.type, {data}, {_SECONDS}" + (", e.bucket" if self._previous else "")
        table = f"supervisor.event e WHERE {self._conditions}"
        return f"SELECT {columns} FROM {table} ORDER BY e.position LIMIT $3"  # noqa: S608 - only our own words and numbers

    def _unapplied(self, rows: list[Any]) -> list[Any]:
        previous = self._previous
        if not previous:
            return rows
        return [row[:_BUCKET] for row in rows if not is_applied(previous, row[_BUCKET], row[_POSITION])]
