"""The machine of one stand, over every pair, and what a runner sees of it."""

from __future__ import annotations

from uuid import UUID

import pytest

from supervisor.leases.lease import Lease
from supervisor.leases.stand import LeaseEvent, LeaseState, LocalLease, moved, standing_in
from supervisor.leases.tenure import LeaseStatus

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
# What brings a stand into each state.
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
    """Every event in every state leads where the drawing says, and one that comes late or twice changes nothing."""
    assert moved(state, event) is TABLE[event][list(LeaseState).index(state)]


def test_nothing_runs_but_under_a_lease_that_is_held() -> None:
    """Only HELD lets a worker run, and only RECALLED and LOST have one that may still do."""
    assert [standing_in(state) for state in LeaseState] == [
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
    """From where a worker may still run nothing but its end leads to the release."""
    if event is not LeaseEvent.WORKER_ENDED:
        assert moved(state, event) in (R, L)


class Bench:
    """A stand with everything that it tells."""

    def __init__(self, state: LeaseState = A) -> None:
        self.now_s = 100.0
        self.changes = 0
        self.lost: list[str] = []
        self.seen: list[LeaseStatus] = []
        self.stand = LocalLease("mail", now_s=lambda: self.now_s, on_change=self._change, on_lost=self._lose)
        self.stand.on_change(lambda: self.seen.append(self.stand.status))
        for event in WAYS[state]:
            self.stand.happens(event, LEASE)
        assert self.stand.state is state
        self.changes = 0
        self.seen.clear()

    def _change(self) -> None:
        self.changes += 1

    def _lose(self, stand: LocalLease, reason: str) -> None:
        self.lost.append(reason)
        stand.happens(LeaseEvent.LOST)


def test_a_runner_hears_of_what_concerns_it() -> None:
    """A runner is told when its standing changes, not of each step on the way."""
    bench = Bench()
    for event in WAYS[G]:
        bench.stand.happens(event, LEASE)
    bench.stand.happens(LeaseEvent.RELEASED)
    assert bench.seen == [LeaseStatus.HELD, LeaseStatus.REVOKING, LeaseStatus.NOT_HELD]


def test_a_lease_is_there_as_long_as_something_may_run_under_it() -> None:
    """The lease is known from its acquisition until its worker has ended, and its epoch until it is given back."""
    bench = Bench(R)
    leases = [bench.stand.lease]
    bench.stand.worker_ended()
    assert [*leases, bench.stand.lease] == [LEASE, None]
    assert bench.stand.given_epoch == 3


def test_what_was_lost_is_not_said_to_be_given_back() -> None:
    """The release of a lock after a loss is no news."""
    bench = Bench(L)
    bench.now_s = 105.0
    bench.stand.worker_ended()
    assert (bench.stand.state, bench.stand.given_epoch, bench.stand.lost_s) == (G, None, None)


def test_a_loss_knows_its_time() -> None:
    """The grace of a worker counts from the loss."""
    bench = Bench(H)
    bench.now_s = 107.0
    bench.stand.happens(LeaseEvent.LOST)
    assert bench.stand.lost_s == 107.0


@pytest.mark.parametrize(("state", "after"), [(A, A), (Q, G), (H, R), (R, R), (L, L), (G, G)])
def test_declining(state: LeaseState, after: LeaseState) -> None:
    """Who declines is told to end what runs; an acquisition in flight is given back without a word."""
    bench = Bench(state)
    bench.stand.request()
    bench.stand.decline()
    assert bench.stand.state is after
    assert not bench.stand.is_offered


def test_declining_again_is_heard_by_who_keeps_a_recalled_lease() -> None:
    """A runner that keeps a recalled lease, being finished, hears that it is declined, and can let go."""
    bench = Bench(R)
    bench.stand.decline()
    assert bench.seen == [LeaseStatus.REVOKING]


def test_offering_twice_is_once() -> None:
    """The node is told of a change of mind, not of each word."""
    bench = Bench()
    bench.stand.request()
    bench.stand.request()
    assert bench.changes == 1


@pytest.mark.parametrize("state", LeaseState)
def test_the_fence_is_believed_where_something_runs(state: LeaseState) -> None:
    """What the fence found counts for a lease that is held or ends, and for no other."""
    bench = Bench(state)
    bench.stand.report_lost("epoch 3 is over")
    assert bench.lost == (["epoch 3 is over"] if state in (H, R) else [])
