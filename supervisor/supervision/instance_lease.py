"""An instance's use of its lease: when it may run, and when the lease can be given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.leases.lease import LeaseStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.leases.lease import LeaseHandle


class InstanceLease:
    """One instance's use of one lease; an instance that needs no lease has none.

    Attributes:
        handle: The lease, as the node sees it.
        is_declined_for_good: Whether no instance of this node will run under it any more.
    """

    __slots__ = ("_epoch", "_is_requested", "handle", "is_declined_for_good")

    def __init__(self, handle: LeaseHandle) -> None:
        self.handle = handle
        self.is_declined_for_good = False
        self._epoch: int | None = None
        self._is_requested: bool | None = None

    @property
    def may_run(self) -> bool:
        """Whether the worker may run here now."""
        return self.handle.status is LeaseStatus.HELD

    @property
    def is_lost(self) -> bool:
        """Whether nothing of the worker may run any more, not even to clean up."""
        return self.handle.status in (LeaseStatus.LOST, LeaseStatus.NOT_HELD)

    @property
    def awaits_worker_end(self) -> bool:
        """Whether the lease is lost, and the node cannot release it before the worker has ended."""
        return self.handle.status is LeaseStatus.LOST

    def take_over_from(self, predecessor: InstanceLease) -> None:
        """Go on where another instance under the same lease stopped."""
        self._epoch = predecessor._epoch

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call `callback` at each change from now on, in the place of any other callback."""
        self.handle.on_change(callback)

    def request(self) -> None:
        """Ask for the lease; nothing of the worker runs."""
        if self._is_requested is not True:
            self._is_requested = True
            self.handle.request()
        self.release_if_due(keep=False)

    def decline(self) -> None:
        """Leave the lease to other nodes while the worker is paused; nothing of the worker runs."""
        if self._is_requested is not False:
            self._is_requested = False
            self.handle.decline()
        self.release_if_due(keep=False)

    def decline_for_good(self) -> None:
        """Leave the lease to other nodes: it is given back once nothing runs under it."""
        self.is_declined_for_good = True
        self.handle.decline()

    def release_if_due(self, *, keep: bool) -> None:
        """Give the lease back if it is lost or revoked; nothing of the worker runs.

        Args:
            keep: Whether a revoked lease is kept all the same.
        """
        status = self.handle.status
        if status is LeaseStatus.LOST or (status is LeaseStatus.REVOKING and not keep):
            self.handle.worker_ended()

    def begin_epoch(self) -> bool:
        """Note the epoch that begins, and return whether this node had the lease last, too."""
        lease = self.handle.lease
        former, self._epoch = self._epoch, None if lease is None else lease.epoch
        return None not in (former, self._epoch) and self._epoch in (former, (former or 0) + 1)
