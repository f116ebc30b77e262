"""One lease as this node stands to it.

```text
             try             taken            recall             vacate
   ABSENT ───────▶ ACQUIRING ─────▶ HELD ───────────▶ RECALLED ─────────▶ RELEASING ──released──▶ ABSENT
      ▲             │      │          │                  │                  ▲
      └──refused────┘      │          └──────lose────────┴──▶ LOST ─vacate──┘
      ▲    lose            └────────recall (no longer wanted)───────────────▶ RELEASING
      └──lose── RELEASING
```

RECALLED and LOST last until the worker has ended (`vacate`), because a lock must not be given back while something
runs under it. LOST goes by RELEASING too: what found the loss may have been the fence, and the lock still ours. An
acquisition that is not wanted any more is given back without the worker ever having heard of it.
"""

from __future__ import annotations

from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from supervisor.leases.tenure import LeaseStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.database.session import Session
    from supervisor.leases.lease import Lease
    from supervisor.leases.look import Holder


class LeaseState(Enum):
    """How this node stands to a lease."""

    NOT_HELD = auto()
    ACQUIRING = auto()
    HELD = auto()
    REVOKING = auto()
    LOST = auto()
    RELEASING = auto()


class LeaseEvent(Enum):
    """What happens to a stand."""

    TRY = "the lock is tried for, or held and the epoch not yet given"
    ACQUIRED = "the lock is held and the epoch given"
    REFUSED = "the lock or the epoch was not to be had"
    REVOKE = "this node is not to hold it any more"
    LOST = "the lock is gone, or no longer to be trusted"
    WORKER_ENDED = "nothing runs under it"
    RELEASED = "the lock was given back, or had gone"


_MOVES: Mapping[tuple[LeaseState, LeaseEvent], LeaseState] = MappingProxyType(
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
_STANDINGS: Mapping[LeaseState, LeaseStatus] = MappingProxyType(
    {
        LeaseState.NOT_HELD: LeaseStatus.NOT_HELD,
        LeaseState.ACQUIRING: LeaseStatus.NOT_HELD,
        LeaseState.HELD: LeaseStatus.HELD,
        LeaseState.REVOKING: LeaseStatus.REVOKING,
        LeaseState.LOST: LeaseStatus.LOST,
        LeaseState.RELEASING: LeaseStatus.NOT_HELD,
    }
)


def moved(state: LeaseState, event: LeaseEvent) -> LeaseState:
    """Return the state after an event; one that comes late, or twice, changes nothing."""
    return _MOVES.get((state, event), state)


def standing_in(state: LeaseState) -> LeaseStatus:
    """Return what the worker's runner is told."""
    return _STANDINGS[state]


class LocalLease:
    """What a runner sees of its lease (`Tenure`), and what the node does about it.

    Attributes:
        name: The lease's name.
        state: Where it stands.
        is_offered: Whether this node is ready to run the worker.
        id: The lease's row; None: not known yet.
        lease: The lease while it is held, or ends.
        lost_s: When it was lost, while something may still run under it.
        offered_s: Since when this node waits for it.
        holder: Who holds it, as far as is known.
        session: The session that holds the lock, or tries to.
        given_epoch: The epoch that a graceful release ends.
    """

    __slots__ = (
        "_clock_s",
        "_notice",
        "_on_change",
        "_on_lost",
        "given_epoch",
        "holder",
        "id",
        "is_offered",
        "lease",
        "lost_s",
        "name",
        "offered_s",
        "session",
        "state",
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
        self.is_offered = False
        self.id: int | None = None
        self.lease: Lease | None = None
        self.lost_s: float | None = None
        self.offered_s = now_s()
        self.holder: Holder | None = None
        self.session: Session | None = None
        self.given_epoch: int | None = None
        self._clock_s = now_s
        self._on_change = on_change
        self._on_lost = on_lost
        self._notice: Callable[[], object] | None = None

    # What the runner asks and says

    @property
    def status(self) -> LeaseStatus:
        """How this node stands to the lease now."""
        return standing_in(self.state)

    def on_change(self, notice: Callable[[], object] | None) -> None:
        """Call `notice` at each change of the standing; the newest counts."""
        self._notice = notice

    def request(self) -> None:
        """Stand for the lease."""
        if not self.is_offered:
            self.is_offered = True
            self.offered_s = self._clock_s()
            self._on_change()

    def decline(self) -> None:
        """Stand for it no more; what runs under it ends first."""
        was_offered, self.is_offered = self.is_offered, False
        if not self.happens(LeaseEvent.REVOKE) and self.status is LeaseStatus.REVOKING:
            self._tell_runner()  # that nobody comes back to it is news for who has kept it
        if was_offered:
            self._on_change()

    def worker_ended(self) -> None:
        """Let the lease go now that nothing runs under it."""
        self.happens(LeaseEvent.WORKER_ENDED)

    def report_lost(self, reason: str) -> None:
        """Take the database's word that it is lost."""
        if self.state in (LeaseState.HELD, LeaseState.REVOKING):
            self._on_lost(self, reason)

    # What the node does

    def happens(self, event: LeaseEvent, lease: Lease | None = None) -> bool:
        """Move, tell the runner, and say whether anything has changed.

        Args:
            event: What has happened.
            lease: What was taken.
        """
        before, self.state = self.state, moved(self.state, event)
        if self.state is before:
            return False
        if self.state is LeaseState.HELD:
            self.lease, self.holder = lease, None
        elif self.state is LeaseState.LOST:
            self.lost_s = self._clock_s()
        elif before in (LeaseState.REVOKING, LeaseState.LOST):
            self.given_epoch = self.lease.epoch if self.lease is not None and before is LeaseState.REVOKING else None
            self.lease, self.lost_s = None, None
            self.offered_s = self._clock_s()
        elif self.state is LeaseState.RELEASING:
            self.given_epoch = None
        self._on_change()
        if standing_in(before) is not self.status:
            self._tell_runner()
        return True

    def _tell_runner(self) -> None:
        if self._notice is not None:
            self._notice()

    def describe(self) -> dict[str, Any]:
        """Return what a status says of it."""
        return {
            "lease": self.name,
            "standing": self.state.name.lower(),
            "epoch": self.lease.epoch if self.lease is not None else None,
            "offered": self.is_offered,
            "holder": self.holder._asdict() if self.holder is not None else None,
        }
