"""What the parts of one shard's work share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import Projection, WorkerSpec
    from supervisor.events.append_signal import AppendSignal
    from supervisor.events.shard import Shard
    from supervisor.leases.lease import LeaseHandle
    from supervisor.supervision.ports import DatabaseStatus


@dataclass(frozen=True, slots=True)
class ShardContext:
    """One shard of a projection on this node.

    Attributes:
        spec: The worker.
        kind: Its settings as a projection.
        shard: The shard.
        handler: The user's function.
        lease_handle: The shard's lease.
        append_signal: Wakes it.
        database: The database.
        clock: Time.
        rng: Chance, for jitter.
        configured_s: Since when the projection is configured as it is.
    """

    spec: WorkerSpec
    kind: Projection
    shard: Shard
    handler: Callable[..., Any]
    lease_handle: LeaseHandle
    append_signal: AppendSignal
    database: DatabaseStatus
    clock: Clock
    rng: Random
    configured_s: float

    @property
    def log_fields(self) -> dict[str, Any]:
        """The fields that name the shard in a journal entry."""
        return {"worker": self.spec.name, "shard": self.shard.label}
