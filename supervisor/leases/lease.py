"""A lease as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from uuid import UUID


class Lease(NamedTuple):
    """What a holder holds; every write carries it, and the database refuses an old one.

    Attributes:
        name: The worker's name, or `NAME/1of4` for a shard of a projection.
        epoch: Grows by one at each acquisition, whoever it is that acquires.
        id: The row in `supervisor.lease`.
        incarnation: Random at each acquisition: after a restore or an asynchronous failover an epoch
            may be given twice.
    """

    name: str
    epoch: int
    id: int
    incarnation: UUID
