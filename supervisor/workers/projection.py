"""A projection: each event once and in order, in the transaction that moves the checkpoint.

```text
                                    ┌─ nothing left: wait for the bell ◀─┐
                                    ▼                                    │
   lay out ─▶ load the checkpoint ─▶ look (horizon) ─▶ read a page ─▶ batch: BEGIN + fence, handler, checkpoint + COMMIT
                    ▲                                                    │ fails, or the checkpoint has been moved
                    └──────────── again, halved, poison (setback, pure) ◀┘
```

Effects in the database are exactly once, because they and the checkpoint commit together, under the lease's fence; and
because the checkpoint is moved only from the revision that was read. Whatever goes wrong, the checkpoint is read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.model import Projection
from supervisor.errors import LeaseLost
from supervisor.events.shard import Shard
from supervisor.journal import current_worker
from supervisor.workers.context import Context
from supervisor.workers.projecting import Projecting

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.events.bell import Bell
    from supervisor.events.lag import Lag
    from supervisor.leases.lease import LeaseHandle
    from supervisor.stop_signal import StopSignal
    from supervisor.supervision.ports import DatabaseStatus
    from supervisor.workers.layout import Layouts


class ProjectionWork:
    """The work of one shard; each run of it lasts until the worker is to stop.

    Attributes:
        spec: The worker.
        function: The handler.
        shard: Which shard it is.
        configured_s: Since when its configuration counts.
        tenure: The shard's lease.
        bell: What wakes it.
        layouts: How its daemon wants projections laid out.
        outages: The database.
        clock: Time.
        rng: Chance, for jitter.
        timetable: None: it runs all the time.
    """

    timetable = None

    def __init__(
        self, spec: WorkerSpec, function: Callable[..., Any], *, shard: int, tenure: LeaseHandle, bell: Bell,
        layouts: Layouts, outages: DatabaseStatus, clock: Clock, rng: Random,
    ) -> None:  # fmt: skip
        assert isinstance(spec.kind, Projection)  # noqa: S101 - nobody else is hired like this
        self.spec = spec
        self.function = function
        self.shard = Shard(spec.name, shard, spec.kind.shards)
        self.tenure = tenure
        self.bell = bell
        self.layouts = layouts
        self.outages = outages
        self.clock = clock
        self.rng = rng
        self.configured_s = layouts.since_s(spec.name, now_s=clock.now_s())
        self._current: Projecting | None = None

    @property
    def lag(self) -> Lag | None:
        """How far behind it is; None: it does not run here."""
        return self._current.behind.lag if self._current is not None else None

    def context(self, stop: StopSignal) -> Context:
        """Return what the handler is given for one call: it must not find the next batch's transaction in it."""
        return Context(self.spec, stop=stop, outages=self.outages, clock=self.clock, tenure=self.tenure)

    async def run(self, stop: StopSignal) -> None:
        """Apply events until the worker is to stop.

        Raises:
            LeaseLost: The lease has passed on; its holder knows by now.
            ProjectionHalted: It stands still until a person acts.
            ShardingConflict: It is laid out as a later configuration says.
        """
        # Before the first connection is taken: whoever waits for one is told who has them.
        current_worker.set(self.spec.name)
        lease = self.tenure.lease
        if lease is None:
            raise LeaseLost(f"the lease {self.tenure.name} is lost")
        # The batch in flight ends before a stop does, and no other begins.
        stop.is_cooperative = True
        self._current = current = Projecting(self, stop, lease)
        try:
            await current.live()
        except LeaseLost as error:
            self.tenure.report_lost(str(error))
            raise
        finally:
            if self._current is current:
                self._current = None
