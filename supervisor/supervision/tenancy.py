"""A runner's dealings with its lease: when it may run, and what becomes of the lease when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.leases.lease import LeaseStatus
from supervisor.supervision.restart import Ending
from supervisor.supervision.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.leases.lease import LeaseHandle
    from supervisor.supervision.runner import Runner

# It would only run again elsewhere: who is done, or stands still until a person acts, holds on to the lease. Who
# stands aside does not: the configuration of another node may need it.
_KEEPING = frozenset({State.FINISHED, State.FAILED})


class Tenancy:
    """One runner's use of one lease; workers without a lease have none.

    Attributes:
        tenure: The lease, as the node sees it.
        ending: How the last run of a runner ended that is not run again.
    """

    __slots__ = ("_epoch", "_has_declined", "_is_ready", "ending", "tenure")

    def __init__(self, tenure: LeaseHandle) -> None:
        self.tenure = tenure
        self.ending: Ending | None = None
        self._epoch: int | None = None
        self._is_ready: bool | None = None
        self._has_declined = False

    @property
    def may_run(self) -> bool:
        """Whether the worker may run here now."""
        return self.tenure.status is LeaseStatus.HELD

    @property
    def is_lost(self) -> bool:
        """Whether nothing of the worker may run any more, not even to put things in order."""
        return self.tenure.status in (LeaseStatus.LOST, LeaseStatus.NOT_HELD)

    @property
    def stands_still(self) -> bool:
        """Whether the runner has ended because it cannot go on until somebody acts, here or elsewhere."""
        return self.ending in (Ending.POISONED, Ending.DISPLACED)

    def succeed(self, predecessor: Tenancy) -> None:
        """Go on where another runner of the same lease stopped."""
        self._epoch = predecessor._epoch

    def attend(self, notice: Callable[[], object]) -> None:
        """Hear of every change from now on."""
        self.tenure.on_change(notice)

    def stand_by(self) -> None:
        """Say that the runner is ready, and that nothing of the worker runs."""
        if self._is_ready is not True:
            self._is_ready = True
            self.tenure.request()
        self._vacate()

    def stand_back(self) -> None:
        """Say that the runner is not ready, and that nothing of the worker runs: it is paused."""
        if self._is_ready is not False:
            self._is_ready = False
            self.tenure.decline()
        self._vacate()

    def _vacate(self) -> None:
        if self.tenure.status in (LeaseStatus.REVOKING, LeaseStatus.LOST):
            self.tenure.worker_ended()

    def give_up(self) -> None:
        """Say that no runner will come here any more: the lease goes once nothing runs."""
        self._has_declined = True
        self.tenure.decline()

    def take_over(self) -> bool:
        """Note the epoch that begins; whether nobody else has held the lease since this runner last did."""
        lease = self.tenure.lease
        former, self._epoch = self._epoch, None if lease is None else lease.epoch
        return None not in (former, self._epoch) and self._epoch in (former, (former or 0) + 1)

    def rest(self, runner: Runner) -> None:
        """See to the lease from now on, in the place of a runner that has come to its end."""

        def look() -> None:
            standing = self.tenure.status
            if runner.has_left_behind():
                if standing is LeaseStatus.LOST:
                    runner.floor.on_outlived(runner)
            elif standing is LeaseStatus.LOST or (standing is LeaseStatus.REVOKING and not self._keeps(runner)):
                self.tenure.worker_ended()

        if runner.state is State.EXHAUSTED or self.ending is Ending.DISPLACED:
            self.give_up()
        self.tenure.on_change(look)
        look()

    def _keeps(self, runner: Runner) -> bool:
        return runner.state in _KEEPING and not self._has_declined
