"""What supervision needs to know of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from supervisor.database.worker_pool import WorkerPool
    from supervisor.stop_signal import StopSignal


class DatabaseStatus(Protocol):
    """The database as supervision sees it: up or not, and whether it explains an error."""

    @property
    def is_up(self) -> bool:
        """Whether the database can be used now."""

    async def wait_until_up(self) -> None:
        """Return once the database can be used."""

    async def is_outage_error(self, error: BaseException, /) -> bool:
        """Whether a worker's error is the doing of an outage, now or just over.

        Verified, bounded in time, and never raises.
        """

    def pool_for(self, stop: StopSignal) -> WorkerPool:
        """Return the pool that a worker sees as `ctx.db`."""
