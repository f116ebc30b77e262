"""What a runner needs of a kind of worker: how one run is done, and when the next is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from supervisor.leases.lease import LeaseHandle
    from supervisor.stop_signal import StopSignal


class Schedule(Protocol):
    """When the runs of a worker are due; a worker without one runs all the time."""

    def delay_s(self) -> float:
        """Return the seconds until the next run is due; 0 or less: it is due.

        May be earlier than the truth (a wall clock can jump), never later: who waits asks again.
        """

    def next_run_s(self) -> float:
        """Return when the next run is due, on the monotonic clock, as well as is known now."""

    def mark_started(self) -> None:
        """Note that the run that was due begins; all that were missed count as this one."""

    def skip_missed(self) -> None:
        """Forget the runs that became due while the worker was paused."""


class Work(Protocol):
    """What one worker does, whatever its kind."""

    @property
    def timetable(self) -> Schedule | None:
        """When runs are due; None: one run follows the other."""

    @property
    def tenure(self) -> LeaseHandle | None:
        """The lease under which it runs; None: it needs none."""

    async def run(self, stop: StopSignal) -> None:
        """Do one run: until the worker returns, or one tick."""
