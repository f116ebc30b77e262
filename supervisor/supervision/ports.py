"""What supervision needs of other packages: the work of a worker's kind, and the state of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec
    from supervisor.database.worker_pool import WorkerPool
    from supervisor.leases.lease import LeaseHandle
    from supervisor.stop_signal import StopSignal


class StallTimeout(Exception):
    """A tick or a batch took longer than its worker's `stall_timeout`."""


class Schedule(Protocol):
    """When the runs of a worker are due; a worker without a schedule runs all the time."""

    def delay_s(self) -> float:
        """Return the seconds until the next run is due; 0 or less: it is due.

        The answer may be too early (a wall clock can jump), never too late: the caller asks again.
        """

    def next_run_s(self) -> float:
        """Return when the next run is due, on the monotonic clock, as far as is known now."""

    def mark_started(self) -> None:
        """Note that the run that was due begins; all runs that were missed count as this one."""

    def skip_missed(self) -> None:
        """Forget the runs that became due while the worker was paused."""


class Work(Protocol):
    """What one instance of a worker does, whatever its kind."""

    @property
    def schedule(self) -> Schedule | None:
        """When runs are due; None: one run follows the other."""

    @property
    def lease_handle(self) -> LeaseHandle | None:
        """The lease under which it runs; None: it needs no lease."""

    async def run(self, stop: StopSignal) -> None:
        """Do one run: until the worker returns, or one tick."""


class WorkFactory(Protocol):
    """Makes the work of one instance."""

    def __call__(self, spec: WorkerSpec, handler: Any, index: int, /) -> Work:
        """Return the work of the worker's instance number `index`, with the user's function as handler."""


class DatabaseStatus(Protocol):
    """The database as supervision sees it: up or not, and whether an outage caused an error."""

    @property
    def is_up(self) -> bool:
        """Whether the database can be used now."""

    async def wait_until_up(self) -> None:
        """Return once the database can be used."""

    async def is_outage_error(self, error: BaseException, /) -> bool:
        """Whether an outage, now or just over, caused a worker's error.

        Verified, bounded in time, and never raises.
        """

    def pool_for(self, stop: StopSignal) -> WorkerPool:
        """Return the pool that a worker sees as `ctx.db`."""
