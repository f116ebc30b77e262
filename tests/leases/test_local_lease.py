"""The state machine of one lease, over every pair, and what a worker's instance sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from supervisor.leases.lease import Lease, LeaseStatus
from supervisor.leases.local_lease import LeaseEvent, LeaseState, LocalLease, LocalLeases, next_state, status_in
from supervisor.leases.snapshot import LeaseHolder

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    """Where a worker may still run, its end leads to the release, and nothing else does."""
    assert (next_state(state, event) is G) is (event is LeaseEvent.WORKER_ENDED)
    assert next_state(state, event) in (R, L, G)


class BenchmarkRun:
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
    bench = BenchmarkRun()
    for event in WAYS[G]:
        bench.lease.apply(event, LEASE)
    bench.lease.apply(LeaseEvent.RELEASED)
    assert bench.seen == [LeaseStatus.HELD, LeaseStatus.REVOKING, LeaseStatus.NOT_HELD]


def test_a_lease_is_there_as_long_as_something_may_run_under_it() -> None:
    """The lease is there from its acquisition until its worker has ended, and its epoch until the release."""
    bench = BenchmarkRun(R)
    leases = [bench.lease.lease]
    bench.lease.worker_ended()
    assert [*leases, bench.lease.lease] == [LEASE, None]
    assert bench.lease.released_epoch == 3


def test_a_lost_lease_is_not_logged_as_released() -> None:
    """The release of a lock after a loss has no epoch to log."""
    bench = BenchmarkRun(L)
    bench.now_s = 105.0
    bench.lease.worker_ended()
    assert (bench.lease.state, bench.lease.released_epoch, bench.lease.lost_s) == (G, None, None)


def test_a_loss_knows_its_time() -> None:
    """The grace of a worker counts from the loss."""
    bench = BenchmarkRun(H)
    bench.now_s = 107.0
    bench.lease.apply(LeaseEvent.LOST)
    assert bench.lease.lost_s == 107.0


@pytest.mark.parametrize(("state", "after"), [(A, A), (Q, G), (H, R), (R, R), (L, L), (G, G)])
def test_declining(state: LeaseState, after: LeaseState) -> None:
    """A lease that is declined ends what runs; an acquisition in flight is released without a notification."""
    bench = BenchmarkRun(state)
    bench.lease.request()
    bench.lease.decline()
    assert bench.lease.state is after
    assert not bench.lease.is_wanted


def test_declining_notifies_once() -> None:
    """The instance and the node are notified when it changes something, and not again."""
    bench = BenchmarkRun(H)
    bench.lease.request()
    bench.changes = 0
    bench.lease.decline()
    assert bench.seen == [LeaseStatus.REVOKING]
    assert bench.changes == 2  # the state has changed, and this node does not want the lease any more
    absent = BenchmarkRun()
    absent.lease.request()
    absent.changes = 0
    absent.lease.decline()
    absent.lease.decline()
    assert absent.changes == 1


def test_the_node_is_notified_of_a_change_and_of_nothing_else() -> None:
    """An event returns whether it changed anything."""
    bench = BenchmarkRun()
    assert bench.lease.apply(LeaseEvent.TRY)
    assert not bench.lease.apply(LeaseEvent.TRY)
    assert bench.changes == 1


def test_an_acquisition_that_is_not_wanted_any_more_ends_no_epoch() -> None:
    """An epoch that was released before is not released again with it."""
    bench = BenchmarkRun(G)
    released = [bench.lease.released_epoch]
    for event in (LeaseEvent.RELEASED, LeaseEvent.TRY, LeaseEvent.REVOKE):
        bench.lease.apply(event)
        released.append(bench.lease.released_epoch)
    assert released == [3, 3, 3, None]  # the node logs it after the release
    assert bench.lease.state is G


def test_a_status_shows_the_lease_here_or_its_holder_elsewhere() -> None:
    """A status describes a lease that is held here, and one that another node has."""
    held, waiting = BenchmarkRun(H).lease, BenchmarkRun().lease
    waiting.request()
    waiting.holder = LeaseHolder("other@host:5", "host", 5, None)
    assert held.describe() == {"lease": "mail", "standing": "held", "epoch": 3, "offered": False, "holder": None}
    assert waiting.describe() == {
        "lease": "mail",
        "standing": "absent",
        "epoch": None,
        "offered": True,
        "holder": waiting.holder._asdict(),
    }


def test_declining_again_notifies_an_instance_that_keeps_a_revoked_lease() -> None:
    """A finished instance that keeps a revoked lease is notified that it is declined, and can end it."""
    bench = BenchmarkRun(R)
    bench.lease.decline()
    assert bench.seen == [LeaseStatus.REVOKING]


def test_requesting_twice_is_one_change() -> None:
    """The node is notified of a change, not of each call."""
    bench = BenchmarkRun()
    bench.lease.request()
    bench.lease.request()
    assert bench.changes == 1


@pytest.mark.parametrize("state", LeaseState)
def test_the_fence_is_believed_where_something_runs(state: LeaseState) -> None:
    """What the fence found counts for a lease that is held or ends, and for no other."""
    bench = BenchmarkRun(state)
    bench.lease.report_lost("epoch 3 is over")
    assert bench.lost == (["epoch 3 is over"] if state in (H, R) else [])


class Node:
    """The leases of a node, with everything that they report."""

    def __init__(self, **ids: int) -> None:
        self.changes = 0
        self.lost: list[tuple[str, str]] = []
        self.leases = LocalLeases(now_s=lambda: 100.0, on_change=self._change, on_lost=self._lose)
        for name in ids:
            self.leases.get(name).request()
        self.leases.set_ids(ids)
        self.changes, self.leases.version = 0, 0

    def bring(self, name: str, state: LeaseState) -> None:
        for event in WAYS[state]:
            self.leases.get(name).apply(event, LEASE)
        self.changes, self.leases.version = 0, 0

    def ids(self) -> dict[str, int | None]:
        return {lease.name: lease.id for lease in self.leases}

    def _change(self) -> None:
        self.changes += 1

    def _lose(self, lease: LocalLease, reason: str) -> None:
        self.lost.append((lease.name, reason))
        lease.apply(LeaseEvent.LOST)


def names(leases: Iterable[LocalLease]) -> list[str]:
    return [lease.name for lease in leases]


def test_a_lease_is_one_object() -> None:
    """A name gives the same lease each time, and a row gives the lease of its name."""
    node = Node(a=1, b=2)
    assert node.leases.get("a") is node.leases.get("a")
    assert names(node.leases) == ["a", "b"]
    assert names(node.leases.of([2, 7, 1])) == ["b", "a"]


def test_a_version_grows_by_one_with_each_change() -> None:
    """A plan is made again if, and only if, the version is another one; the node hears of a change of a lease."""
    leases = LocalLeases(now_s=lambda: 100.0, on_change=lambda: None, on_lost=lambda *_: None)
    assert leases.version == 0
    node = Node(a=1)
    node.leases.get("a").apply(LeaseEvent.TRY)
    assert (node.changes, node.leases.version) == (1, 1)
    node.leases.get("b")
    node.leases.set_ids({"a": 1})
    assert (node.changes, node.leases.version) == (1, 1)
    node.leases.set_ids({"a": 1, "b": 2})
    assert (node.changes, node.leases.version) == (1, 2)
    node.leases.clear_ids()
    assert (node.changes, node.leases.version) == (1, 3)


def test_leases_are_found_by_their_states() -> None:
    """What runs, what is to be given back, and what is waited for."""
    node = Node(a=1, q=2, h=3, r=4, lost=5, g=6)
    node.leases.get("idle")
    for name, state in {"q": Q, "h": H, "r": R, "lost": L, "g": G}.items():
        node.bring(name, state)
    assert names(node.leases.in_states(Q, G)) == ["q", "g"]
    assert names(node.leases.trusted()) == ["h", "r"]
    assert names(node.leases.not_free()) == ["q", "h", "r", "lost", "g"]
    assert names(node.leases.waiting()) == ["a"]
    assert node.leases.states() == {1: A, 2: Q, 3: H, 4: R, 5: L, 6: G}


def test_what_is_wanted_and_what_has_no_row_yet() -> None:
    """Only a wanted lease is looked up, and only one with a row is wanted from the others."""
    node = Node(known=1, declined=2)
    node.leases.get("declined").decline()
    node.leases.get("new").request()
    node.leases.get("idle")
    assert node.leases.without_id() == ["new"]
    assert node.leases.wanted() == {1}


def test_an_event_for_several_returns_those_that_changed() -> None:
    """A lease that the event does not concern is not among them, nor is an unknown row."""
    node = Node(a=1, b=2)
    node.bring("b", H)
    assert names(node.leases.apply([1, 2, 7], LeaseEvent.TRY)) == ["a"]
    assert node.leases.states() == {1: Q, 2: H}


def test_a_row_of_a_name_that_is_not_known_is_skipped() -> None:
    """Neither that nor a row that is known already keeps the others from getting theirs."""
    node = Node(a=1)
    node.leases.get("b")
    node.leases.set_ids({"other": 5, "a": 1, "b": 2})
    assert node.ids() == {"a": 1, "b": 2}
    assert names(node.leases.of([5, 1, 2])) == ["a", "b"]


def test_a_lease_with_a_new_row_leaves_its_old_one() -> None:
    """After its row was made again, the old one is nobody's."""
    node = Node(a=1)
    node.leases.set_ids({"a": 3})
    assert names(node.leases.of([1, 3])) == ["a"]
    assert node.leases.states() == {3: A}


def test_a_row_that_was_another_leases_changes_hands() -> None:
    """The former lease of the row has none any more, and is looked up again."""
    node = Node(a=1, b=2)
    node.leases.set_ids({"b": 1})
    assert node.ids() == {"a": None, "b": 1}
    assert node.leases.states() == {1: A}
    assert node.leases.without_id() == ["a"]


@pytest.mark.parametrize(("state", "after", "is_lost"), [(Q, A, True), (H, L, True), (R, L, True)])
def test_a_row_is_not_taken_from_a_lease_that_something_runs_under(
    state: LeaseState, after: LeaseState, is_lost: bool
) -> None:
    """The former lease of the row is lost first, and the others get their rows meanwhile."""
    node = Node(a=1, b=2)
    node.leases.get("c")
    node.bring("a", state)
    node.leases.set_ids({"b": 1, "c": 3})
    assert node.lost == [("a", "its row is that of b now")] * is_lost
    assert node.leases.get("a").state is after
    assert node.ids() == {"a": 1, "b": 2, "c": 3}


def test_an_observer_that_loses_nothing_has_the_lease_revoked() -> None:
    """A lease whose row is another's is given back, whatever is made of the report."""
    leases = LocalLeases(now_s=lambda: 100.0, on_change=lambda: None, on_lost=lambda *_: None)
    leases.get("b")
    for event in WAYS[H]:
        leases.get("a").apply(event, LEASE)
    leases.set_ids({"a": 1})
    leases.set_ids({"b": 1})
    assert leases.get("a").state is R


def test_rows_are_forgotten_where_nothing_is_held() -> None:
    """A held lease keeps its row; of the others those that are named are looked up again, or all."""
    node = Node(a=1, b=2, h=3)
    node.bring("h", H)
    node.leases.clear_ids([2, 3])
    assert node.ids() == {"a": 1, "b": None, "h": 3}
    assert names(node.leases.of([1, 2, 3])) == ["a", "h"]
    node.leases.clear_ids()
    assert node.ids() == {"a": None, "b": None, "h": 3}
    assert names(node.leases.of([1, 2, 3])) == ["h"]


def test_a_forgotten_row_of_another_database_is_left_to_its_new_lease() -> None:
    """The number may be another lease's by then."""
    node = Node(a=1)
    node.leases.get("b")
    node.leases.get("a").id, node.leases._by_id[1] = 1, node.leases.get("b")
    node.leases.clear_ids()
    assert node.ids() == {"a": None, "b": None}
    assert names(node.leases.of([1])) == ["b"]
