"""A lease as a value, and what a worker's instance sees of its lease."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID


class Lease(NamedTuple):
    """What a holder holds; every write carries it, and the database refuses an old one.

    Attributes:
        name: The worker's name, or `NAME/1of4` for a shard of a projection.
        epoch: Grows by one at each acquisition, on whichever node.
        id: The row in `supervisor.lease`.
        incarnation: Random at each acquisition: after a restore or an asynchronous failover an epoch
            may be given twice.
    """

    name: str
    epoch: int
    id: int
    incarnation: UUID


class LeaseStatus(Enum):
    """What a lease allows its worker on this node."""

    NOT_HELD = "not held here: nothing may run"
    HELD = "held and trusted: the worker runs"
    REVOKING = "to be given back: the worker ends as it does at a stop, then the lease is released"
    LOST = "gone, or no longer trusted: the worker is cancelled now"


class LeaseHandle(Protocol):
    """One lease, as one instance of a worker sees it."""

    @property
    def name(self) -> str:
        """The lease's name."""

    @property
    def status(self) -> LeaseStatus:
        """What the lease allows now."""

    @property
    def lease(self) -> Lease | None:
        """The lease under which the worker runs or ends; None: there is none any more."""

    def on_change(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` at each change of `status`; a lease has one instance, and the newest callback counts."""

    def request(self) -> None:
        """Request the lease: this node is ready to run the worker."""

    def decline(self) -> None:
        """End the request (paused, exhausted, removed): the lease is released once nothing runs."""

    def worker_ended(self) -> None:
        """Report that nothing of the worker runs; has an effect only after REVOKING or LOST."""

    def report_lost(self, reason: str) -> None:
        """Report that the database refused the lease: it is lost, whatever this node believed until now."""

    def describe(self) -> dict[str, Any]:
        """Return what `status` shows: `lease`, `standing`, `epoch`, and `holder`, the node that holds it elsewhere."""
