"""The work of one shard of a projection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.errors import LeaseLost
from supervisor.journal import current_worker
from supervisor.workers.projection.run import ProjectionRun

if TYPE_CHECKING:
    from supervisor.events.lag import Lag
    from supervisor.leases.lease import LeaseHandle
    from supervisor.stop_signal import StopSignal
    from supervisor.workers.projection.shard_context import ShardContext
    from supervisor.workers.projection.sharding import ShardingClaims


class ProjectionWork:
    """The work of one shard; each run of it lasts until the worker is to stop.

    Attributes:
        schedule: None: it runs all the time.
        lease_handle: The shard's lease.
    """

    schedule = None

    def __init__(self, context: ShardContext, claims: ShardingClaims) -> None:
        self.lease_handle: LeaseHandle = context.lease_handle
        self._context = context
        self._claims = claims
        self._current: ProjectionRun | None = None

    @property
    def lag(self) -> Lag | None:
        """How far behind it is; None: it does not run here."""
        return self._current.lag if self._current is not None else None

    async def run(self, stop: StopSignal) -> None:
        """Apply events until the worker is to stop.

        Raises:
            LeaseLost: The lease was lost, and `report_lost` was called.
            ProjectionHalted: The projection halts until an operator acts.
            ShardingConflict: A newer configuration has another number of shards.
        """
        # Before the first connection is taken: the entry about an exhausted pool names the workers that hold them.
        current_worker.set(self._context.spec.name)
        lease = self.lease_handle.lease
        if lease is None:
            raise LeaseLost(f"the lease {self.lease_handle.name} is lost")
        # The batch in progress ends before a stop does, and no other begins.
        stop.is_cooperative = True
        self._current = current = ProjectionRun(self._context, self._claims, stop, lease)
        try:
            await current.run()
        except LeaseLost as error:
            self.lease_handle.report_lost(str(error))
            raise
        finally:
            if self._current is current:
                self._current = None
