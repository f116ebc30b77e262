"""The state machine of one lease, over every pair, and what a worker's instance sees of it."""

from __future__ import annotations

from uuid import UUID

import pytest

from supervisor.leases.lease import Lease, LeaseStatus
from supervisor.leases.local_lease import LeaseEvent, LeaseState, LocalLease, next_state, status_in

A, Q, H, R, L, G = (
    LeaseState.NOT_HELD,
    LeaseState.ACQUIRING,
    LeaseState.HELD,
    LeaseState.REVOKING,
    LeaseState.LOST,
    LeaseState.RELEASING,
)
LEASE = Lease("mail", 3, 7, UUID(int=1))
TABLE = {
    #               A  Q  H  R  L  G
    LeaseEvent.TRY: (Q, Q, H, R, L, G),
    LeaseEvent.ACQUIRED: (A, H, H, R, L, G),
    LeaseEvent.REFUSED: (A, A, H, R, L, G),
    LeaseEvent.REVOKE: (A, G, R, R, L, G),
    LeaseEvent.LOST: (A, A, L, L, L, A),
    LeaseEvent.WORKER_ENDED: (A, Q, H, G, G, G),
    LeaseEvent.RELEASED: (A, Q, H, R, L, A),
}
# What brings a lease into each state.
WAYS = {
    A: (),
    Q: (LeaseEvent.TRY,),
    H: (LeaseEvent.TRY, LeaseEvent.ACQUIRED),
    R: (LeaseEvent.TRY, LeaseEvent.ACQUIRED, LeaseEvent.REVOKE),
    L: (LeaseEvent.TRY, LeaseEvent.ACQUIRED, LeaseEvent.LOST),
    G: (LeaseEvent.TRY, LeaseEvent.ACQUIRED, LeaseEvent.REVOKE, LeaseEvent.WORKER_ENDED),
}


@pytest.mark.parametrize("event", LeaseEvent)
@pytest.mark.parametrize("state", LeaseState)
def test_every_pair(state: LeaseState, event: LeaseEvent) -> None:
    """Every event in every state leads where the diagram says, and one that comes late or twice changes nothing."""
    assert next_state(state, event) is TABLE[event][list(LeaseState).index(state)]


def test_nothing_runs_but_under_a_lease_that_is_held() -> None:
    """Only HELD lets a worker run, and only REVOKING and LOST have one that may still run."""
    assert [status_in(state) for state in LeaseState] == [
        LeaseStatus.NOT_HELD,
        LeaseStatus.NOT_HELD,
        LeaseStatus.HELD,
        LeaseStatus.REVOKING,
        LeaseStatus.LOST,
        LeaseStatus.NOT_HELD,
    ]


@pytest.mark.parametrize("event", LeaseEvent)
@pytest.mark.parametrize("state", [R, L])
def test_a_lock_is_not_given_back_under_a_worker(state: LeaseState, event: LeaseEvent) -> None:
    """Where a worker may still run, only its end leads to the release."""
    if event is not LeaseEvent.WORKER_ENDED:
        assert next_state(state, event) in (R, L)


class Bench:
    """A lease with everything that it reports."""

    def __init__(self, state: LeaseState = A) -> None:
        self.now_s = 100.0
        self.changes = 0
        self.lost: list[str] = []
        self.seen: list[LeaseStatus] = []
        self.lease = LocalLease("mail", now_s=lambda: self.now_s, on_change=self._change, on_lost=self._lose)
        self.lease.on_change(lambda: self.seen.append(self.lease.status))
        for event in WAYS[state]:
            self.lease.apply(event, LEASE)
        assert self.lease.state is state
        self.changes = 0
        self.seen.clear()

    def _change(self) -> None:
        self.changes += 1

    def _lose(self, lease: LocalLease, reason: str) -> None:
        self.lost.append(reason)
        lease.apply(LeaseEvent.LOST)


def test_an_instance_is_notified_of_what_concerns_it() -> None:
    """An instance is notified when the status changes, not at each change of the state."""
    bench = Bench()
    for event in WAYS[G]:
        bench.lease.apply(event, LEASE)
    bench.lease.apply(LeaseEvent.RELEASED)
    assert bench.seen == [LeaseStatus.HELD, LeaseStatus.REVOKING, LeaseStatus.NOT_HELD]


def test_a_lease_is_there_as_long_as_something_may_run_under_it() -> None:
    """The lease is there from its acquisition until its worker has ended, and its epoch until the release."""
    bench = Bench(R)
    leases = [bench.lease.lease]
    bench.lease.worker_ended()
    assert [*leases, bench.lease.lease] == [LEASE, None]
    assert bench.lease.released_epoch == 3


def test_a_lost_lease_is_not_logged_as_released() -> None:
    """The release of a lock after a loss has no epoch to log."""
    bench = Bench(L)
    bench.now_s = 105.0
    bench.lease.worker_ended()
    assert (bench.lease.state, bench.lease.released_epoch, bench.lease.lost_s) == (G, None, None)


def test_a_loss_knows_its_time() -> None:
    """The grace of a worker counts from the loss."""
    bench = Bench(H)
    bench.now_s = 107.0
    bench.lease.apply(LeaseEvent.LOST)
    assert bench.lease.lost_s == 107.0


@pytest.mark.parametrize(("state", "after"), [(A, A), (Q, G), (H, R), (R, R), (L, L), (G, G)])
def test_declining(state: LeaseState, after: LeaseState) -> None:
    """A lease that is declined ends what runs; an acquisition in flight is released without a notification."""
    bench = Bench(state)
    bench.lease.request()
    bench.lease.decline()
    assert bench.lease.state is after
    assert not bench.lease.is_wanted


def test_declining_again_notifies_an_instance_that_keeps_a_revoked_lease() -> None:
    """A finished instance that keeps a revoked lease is notified that it is declined, and can end it."""
    bench = Bench(R)
    bench.lease.decline()
    assert bench.seen == [LeaseStatus.REVOKING]


def test_requesting_twice_is_one_change() -> None:
    """The node is notified of a change, not of each call."""
    bench = Bench()
    bench.lease.request()
    bench.lease.request()
    assert bench.changes == 1


@pytest.mark.parametrize("state", LeaseState)
def test_the_fence_is_believed_where_something_runs(state: LeaseState) -> None:
    """What the fence found counts for a lease that is held or ends, and for no other."""
    bench = Bench(state)
    bench.lease.report_lost("epoch 3 is over")
    assert bench.lost == (["epoch 3 is over"] if state in (H, R) else [])
