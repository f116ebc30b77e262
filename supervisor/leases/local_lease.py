"""The state of each lease on this node; the package's docstring draws the state machine."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from supervisor.leases.lease import LeaseStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from supervisor.database.session import Session
    from supervisor.leases.lease import Lease
    from supervisor.leases.snapshot import LeaseHolder


class LeaseState(Enum):
    """The state of a lease on this node; the values are shown in `status --json`."""

    NOT_HELD = "absent"
    ACQUIRING = "acquiring"
    HELD = "held"
    REVOKING = "recalled"
    LOST = "lost"
    RELEASING = "releasing"


class LeaseEvent(Enum):
    """What changes the state."""

    TRY = "the node tries the lock, or holds it and has no epoch yet"
    ACQUIRED = "the lock is held and the epoch is new"
    REFUSED = "the lock or the epoch was not available"
    REVOKE = "this node is to give the lease back"
    LOST = "the lock is gone, or no longer trusted"
    WORKER_ENDED = "nothing runs under the lease"
    RELEASED = "the lock was given back, or went with its session"


_TRANSITIONS: Mapping[tuple[LeaseState, LeaseEvent], LeaseState] = MappingProxyType(
    {
        (LeaseState.NOT_HELD, LeaseEvent.TRY): LeaseState.ACQUIRING,
        (LeaseState.ACQUIRING, LeaseEvent.ACQUIRED): LeaseState.HELD,
        (LeaseState.ACQUIRING, LeaseEvent.REFUSED): LeaseState.NOT_HELD,
        (LeaseState.ACQUIRING, LeaseEvent.REVOKE): LeaseState.RELEASING,
        (LeaseState.ACQUIRING, LeaseEvent.LOST): LeaseState.NOT_HELD,
        (LeaseState.HELD, LeaseEvent.REVOKE): LeaseState.REVOKING,
        (LeaseState.HELD, LeaseEvent.LOST): LeaseState.LOST,
        (LeaseState.REVOKING, LeaseEvent.LOST): LeaseState.LOST,
        (LeaseState.REVOKING, LeaseEvent.WORKER_ENDED): LeaseState.RELEASING,
        (LeaseState.LOST, LeaseEvent.WORKER_ENDED): LeaseState.RELEASING,
        (LeaseState.RELEASING, LeaseEvent.RELEASED): LeaseState.NOT_HELD,
        (LeaseState.RELEASING, LeaseEvent.LOST): LeaseState.NOT_HELD,
    }
)
_STATUS: Mapping[LeaseState, LeaseStatus] = MappingProxyType(
    {
        LeaseState.NOT_HELD: LeaseStatus.NOT_HELD,
        LeaseState.ACQUIRING: LeaseStatus.NOT_HELD,
        LeaseState.HELD: LeaseStatus.HELD,
        LeaseState.REVOKING: LeaseStatus.REVOKING,
        LeaseState.LOST: LeaseStatus.LOST,
        LeaseState.RELEASING: LeaseStatus.NOT_HELD,
    }
)
# A worker may run in these, and the lock must be this node's.
TRUSTED = frozenset({LeaseState.HELD, LeaseState.REVOKING})


def next_state(state: LeaseState, event: LeaseEvent) -> LeaseState:
    """Return the state after an event; an event that comes late, or twice, changes nothing."""
    return _TRANSITIONS.get((state, event), state)


def status_in(state: LeaseState) -> LeaseStatus:
    """Return what the worker's instance sees of a state."""
    return _STATUS[state]


class LocalLease:
    """One lease on this node: what the worker's instance sees of it (`LeaseHandle`), and what the node knows of it.

    Attributes:
        name: The lease's name.
        state: Its state on this node.
        is_wanted: Whether this node is ready to run the worker.
        id: The lease's row; None: not known yet.
        lease: The lease while a worker may run under it.
        lost_s: When it was lost, while something may still run under it.
        waiting_since_s: Since when this node waits for it.
        holder: The node that holds it, as far as is known.
        session: The session that holds the lock, or tries to.
        released_epoch: The epoch that a release after REVOKING ends.
    """

    __slots__ = (
        "_callback",
        "_now_s",
        "_on_change",
        "_on_lost",
        "holder",
        "id",
        "is_wanted",
        "lease",
        "lost_s",
        "name",
        "released_epoch",
        "session",
        "state",
        "waiting_since_s",
    )

    def __init__(
        self,
        name: str,
        *,
        now_s: Callable[[], float],
        on_change: Callable[[], object],
        on_lost: Callable[[LocalLease, str], object],
    ) -> None:
        self.name = name
        self.state = LeaseState.NOT_HELD
        self.is_wanted = False
        self.id: int | None = None
        self.lease: Lease | None = None
        self.lost_s: float | None = None
        self.waiting_since_s = now_s()
        self.holder: LeaseHolder | None = None
        self.session: Session | None = None
        self.released_epoch: int | None = None
        self._now_s = now_s
        self._on_change = on_change
        self._on_lost = on_lost
        self._callback: Callable[[], object] | None = None

    @property
    def status(self) -> LeaseStatus:
        """What the lease allows its worker now."""
        return status_in(self.state)

    def on_change(self, callback: Callable[[], object] | None) -> None:
        """Call `callback` at each change of the status; the newest callback counts."""
        self._callback = callback

    def request(self) -> None:
        """Request the lease."""
        if not self.is_wanted:
            self.is_wanted = True
            self.waiting_since_s = self._now_s()
            self._on_change()

    def decline(self) -> None:
        """End the request; what runs under the lease ends first."""
        was_wanted, self.is_wanted = self.is_wanted, False
        if not self.apply(LeaseEvent.REVOKE) and self.state is LeaseState.REVOKING:
            self._notify()  # an instance that keeps a revoked lease has to know that it will not be used again
        if was_wanted:
            self._on_change()

    def worker_ended(self) -> None:
        """Report that nothing runs under the lease."""
        self.apply(LeaseEvent.WORKER_ENDED)

    def report_lost(self, reason: str) -> None:
        """Report that the database refused the lease."""
        if self.state in TRUSTED:
            self._on_lost(self, reason)

    def apply(self, event: LeaseEvent, lease: Lease | None = None) -> bool:
        """Change the state, notify the instance, and return whether anything has changed.

        Args:
            event: What has happened.
            lease: What was acquired.
        """
        before, self.state = self.state, next_state(self.state, event)
        if self.state is before:
            return False
        if self.state is LeaseState.HELD:
            self.lease, self.holder = lease, None
        elif self.state is LeaseState.LOST:
            self.lost_s = self._now_s()
        elif before in (LeaseState.REVOKING, LeaseState.LOST):
            was_revoked = before is LeaseState.REVOKING
            self.released_epoch = self.lease.epoch if self.lease is not None and was_revoked else None
            self.lease, self.lost_s = None, None
            self.waiting_since_s = self._now_s()
        elif self.state is LeaseState.RELEASING:
            self.released_epoch = None
        self._on_change()
        if status_in(before) is not status_in(self.state):
            self._notify()
        return True

    def _notify(self) -> None:
        if self._callback is not None:
            self._callback()

    def describe(self) -> dict[str, Any]:
        """Return what `status` shows of the lease."""
        return {
            "lease": self.name,
            "standing": self.state.value,
            "epoch": self.lease.epoch if self.lease is not None else None,
            "offered": self.is_wanted,
            "holder": self.holder._asdict() if self.holder is not None else None,
        }


class LocalLeases:
    """The leases of a node by their names.

    Attributes:
        version: Grows with each change of any of them.
    """

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        on_change: Callable[[], object],
        on_lost: Callable[[LocalLease, str], object],
    ) -> None:
        self.version = 0
        self._now_s = now_s
        self._on_change = on_change
        self._on_lost = on_lost
        self._by_name: dict[str, LocalLease] = {}
        self._by_id: dict[int, LocalLease] = {}

    def get(self, name: str) -> LocalLease:
        """Return the lease of this name, always the same object."""
        lease = self._by_name.get(name)
        if lease is None:
            lease = LocalLease(name, now_s=self._now_s, on_change=self._changed, on_lost=self._on_lost)
            self._by_name[name] = lease
        return lease

    def __iter__(self) -> Iterator[LocalLease]:
        return iter(self._by_name.values())

    def of(self, ids: Iterable[int]) -> list[LocalLease]:
        """Return the leases of these rows."""
        return [self._by_id[lease] for lease in ids if lease in self._by_id]

    def in_states(self, *states: LeaseState) -> list[LocalLease]:
        """Return the leases in one of these states."""
        return [lease for lease in self if lease.state in states]

    def trusted(self) -> list[LocalLease]:
        """Return the leases under which a worker may run."""
        return self.in_states(*TRUSTED)

    def not_free(self) -> list[LocalLease]:
        """Return the leases under which something runs, or whose locks are still to be given back."""
        return [lease for lease in self if lease.state is not LeaseState.NOT_HELD]

    def waiting(self) -> list[LocalLease]:
        """Return the leases that this node wants and does not have."""
        return [lease for lease in self if lease.is_wanted and lease.state is LeaseState.NOT_HELD]

    def without_id(self) -> list[str]:
        """Return the names of the leases that are wanted and whose rows are not known."""
        return [lease.name for lease in self if lease.is_wanted and lease.id is None]

    def set_ids(self, ids: Mapping[str, int]) -> None:
        """Store the rows of leases.

        A row that was another lease's is skipped until nothing is held any more under that one.
        """
        for name, row in ids.items():
            lease = self._by_name.get(name)
            if lease is None or lease.id == row:
                continue
            former = self._by_id.get(row)
            if former is not None and former.state is not LeaseState.NOT_HELD:
                self._on_lost(former, f"its row is that of {name} now")
                former.apply(LeaseEvent.REVOKE)
                continue
            if former is not None:
                former.id = None
            if lease.id is not None:
                self._by_id.pop(lease.id, None)
            lease.id = row
            self._by_id[row] = lease
            self.version += 1

    def clear_ids(self, ids: Container[int] | None = None) -> None:
        """Have rows looked up again under which nothing is held: these, or all because it is another database."""
        for lease in self:
            if lease.id is not None and lease.state is LeaseState.NOT_HELD and (ids is None or lease.id in ids):
                if self._by_id.get(lease.id) is lease:  # in another database the number may be another lease's by now
                    del self._by_id[lease.id]
                lease.id = None
        self.version += 1

    def wanted(self) -> frozenset[int]:
        """Return the leases that this node is ready to hold."""
        return frozenset(lease.id for lease in self if lease.is_wanted and lease.id is not None)

    def states(self) -> dict[int, LeaseState]:
        """Return the state of each lease whose row is known."""
        return {row: lease.state for row, lease in self._by_id.items()}

    def apply(self, ids: Iterable[int], event: LeaseEvent) -> list[LocalLease]:
        """Change the state of these leases; return those that did change."""
        return [lease for lease in self.of(ids) if lease.apply(event)]

    def _changed(self) -> None:
        self.version += 1
        self._on_change()
