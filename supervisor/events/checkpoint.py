"""How far a shard has come, and how far it could."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.events.shard import Layer

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.events.shard import Shard

_LOAD = """
    SELECT p.shards, c.position, c.revision, c.layers::text AS layers
    FROM supervisor.projection p
    LEFT JOIN supervisor.checkpoint c ON c.projection = p.name AND c.shard = $2 AND c.shards = $3
    WHERE p.name = $1
"""
# The horizon is asked in a statement of its own: the events have to be read by a later one.
_LOOK = """
    SELECT supervisor.horizon() AS horizon, supervisor.head() AS head, clock_timestamp() AS now, c.revision,
        supervisor.may_hold_large_events() AS may_be_large
    FROM (SELECT) AS always
    LEFT JOIN supervisor.checkpoint c ON c.projection = $1 AND c.shard = $2 AND c.shards = $3
"""


class Checkpoint(NamedTuple):
    """A shard's place in the log.

    Attributes:
        position: Every event of the shard up to here has been applied.
        revision: Grows with each move, whoever makes it.
        layers: What earlier layouts had applied beyond it.
    """

    position: int
    revision: int
    layers: tuple[Layer, ...] = ()


class NoCheckpoint(NamedTuple):
    """There is no checkpoint for this shard.

    Attributes:
        shards: Over how many shards the projection is laid out; 0: there is no such projection any more.
    """

    shards: int


class Sight(NamedTuple):
    """What a look at the log shows.

    Attributes:
        horizon: Up to here every event is decided, and can be read from now on.
        head: The last position that has been drawn.
        revision: Of the checkpoint; None: there is none for this shard any more.
        now: The server's clock.
        may_be_large: Whether there may be a large event up to the horizon.
    """

    horizon: int
    head: int
    revision: int | None
    now: datetime
    may_be_large: bool = True

    @property
    def is_held_back(self) -> bool:
        """Whether a transaction in flight has appended; should it roll back, nobody says so."""
        return self.horizon < self.head


async def load(connection: Any, shard: Shard) -> Checkpoint | NoCheckpoint:
    """Return a shard's checkpoint."""
    row = await connection.fetchrow(_LOAD, *shard)
    if row is None:
        return NoCheckpoint(0)
    if row["position"] is None:
        return NoCheckpoint(row["shards"])
    layers = (Layer(layer["shards"], tuple(layer["positions"])) for layer in json.loads(row["layers"]))
    return Checkpoint(row["position"], row["revision"], tuple(layers))


async def look(connection: Any, shard: Shard) -> Sight:
    """Return how far the log can be read now."""
    row = await connection.fetchrow(_LOOK, *shard)
    return Sight(row["horizon"], row["head"], row["revision"], row["now"], row["may_be_large"])
