"""A lease that comes and goes as the test says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from supervisor.leases.lease import Lease, LeaseStatus

if TYPE_CHECKING:
    from collections.abc import Callable


# As `status` shows them.
_SHOWN = {
    LeaseStatus.NOT_HELD: "absent",
    LeaseStatus.HELD: "held",
    LeaseStatus.REVOKING: "recalled",
    LeaseStatus.LOST: "lost",
}


class ScriptedLease:
    """One lease as an instance sees it; the test plays the node.

    Attributes:
        said: What the instance said, in order: `request`, `decline`, `worker_ended`.
        epoch: The epoch of the last acquisition, here or elsewhere.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = LeaseStatus.NOT_HELD
        self.lease: Lease | None = None
        self.said: list[str] = []
        self.epoch = 0
        self._callback: Callable[[], object] | None = None

    # What the node does

    def give(self) -> None:
        """Acquire it for this node."""
        self.epoch += 1
        self.lease = Lease(self.name, self.epoch, 1, UUID(int=self.epoch))
        self._become(LeaseStatus.HELD)

    def revoke(self) -> None:
        """Ask for it back."""
        self._become(LeaseStatus.REVOKING)

    def lose(self) -> None:
        """Find it gone."""
        self._become(LeaseStatus.LOST)

    def pass_elsewhere(self) -> None:
        """Let another node hold it for a while."""
        assert self.status is LeaseStatus.NOT_HELD
        self.epoch += 1

    # What the instance says

    def on_change(self, callback: Callable[[], object] | None) -> None:
        self._callback = callback

    def request(self) -> None:
        self.said.append("request")

    def decline(self) -> None:
        self.said.append("decline")
        if self.status is LeaseStatus.HELD:
            self._become(LeaseStatus.REVOKING)

    def worker_ended(self) -> None:
        if self.status in (LeaseStatus.REVOKING, LeaseStatus.LOST):
            self.said.append("worker_ended")
            self.lease = None
            self._become(LeaseStatus.NOT_HELD)

    def describe(self) -> dict[str, Any]:
        holder = {"name": "b@host:1", "host": "host", "pid": 1, "since": datetime(2026, 1, 1, tzinfo=UTC)}
        return {
            "lease": self.name,
            "standing": _SHOWN[self.status],
            "epoch": self.lease.epoch if self.lease is not None else None,
            "holder": holder if self.status is LeaseStatus.NOT_HELD else None,
        }

    def report_lost(self, reason: str) -> None:  # noqa: ARG002 - a node would tell it
        self._become(LeaseStatus.LOST)

    def _become(self, status: LeaseStatus) -> None:
        self.status = status
        if self._callback is not None:
            self._callback()
