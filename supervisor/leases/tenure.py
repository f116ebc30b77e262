"""What a worker's runner knows of its lease: whether it may run here now."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.leases.lease import Lease


class LeaseStatus(Enum):
    """How a node stands to a lease, as far as the worker is concerned."""

    NOT_HELD = "not held here: nothing may run"
    HELD = "held and trusted: the worker runs"
    REVOKING = "to be given back: the worker ends as it does at a stop, then the lease goes"
    LOST = "gone, or no longer to be trusted: the worker is cancelled now"


class LeaseHandle(Protocol):
    """One lease, as one runner sees it."""

    @property
    def name(self) -> str:
        """The lease's name."""

    @property
    def status(self) -> LeaseStatus:
        """How this node stands to it now."""

    @property
    def lease(self) -> Lease | None:
        """The lease under which the worker runs or ends; None: there is none any more."""

    def on_change(self, notice: Callable[[], object] | None) -> None:
        """Call `notice` at each change of `standing`; there is one runner to a lease, and the newest counts."""

    def request(self) -> None:
        """Say that this node is ready to run the worker."""

    def decline(self) -> None:
        """Say that it is not any more (paused, exhausted, removed): the lease goes once nothing runs."""

    def report_lost(self, reason: str) -> None:
        """Say that the database refused the lease: it is lost, whatever was believed until now."""

    def describe(self) -> dict[str, Any]:
        """Return what a status says of it: `lease`, `standing`, `epoch`, and `holder`, who has it elsewhere."""

    def worker_ended(self) -> None:
        """Say that nothing of the worker runs: after RECALLED or LOST, and before that without effect."""
