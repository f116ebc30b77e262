"""Plans from snapshots: single ones, and a whole cluster of nodes that act in any order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.leases.assignment import Candidate, assign
from supervisor.leases.local_lease import LeaseState
from supervisor.leases.plan import (
    EMPTY,
    RECLAIM_WINDOW_S,
    UNRESPONSIVE_AFTER_S,
    Plan,
    PlanCache,
    PlanInput,
    PlanState,
    Reclaimable,
    lost_locks,
    make_plan,
)
from supervisor.leases.snapshot import ClusterSnapshot
from supervisor.leases.timing import STANDBY_POLL_S

if TYPE_CHECKING:
    from collections.abc import Mapping

A, H = LeaseState.NOT_HELD, LeaseState.HELD


def snapshot(holders: Mapping[int, int], nodes: tuple[int, ...] = (1, 2)) -> ClusterSnapshot:
    leases = sorted(holders)
    return ClusterSnapshot(0.0, 99, True, list(nodes), 1, leases, [holders[lease] for lease in leases], 0, False)


def plan_input(
    holders: Mapping[int, int],
    states: Mapping[int, LeaseState],
    *,
    wanted: Mapping[int, set[int]] | None = None,
    requests: Mapping[int, int] | None = None,
    reclaimable: Reclaimable | None = None,
    now_s: float = 100.0,
    version: int = 1,
    may_acquire: bool = True,
) -> PlanInput:
    """Return the input of node 1; both nodes want everything unless told otherwise."""
    leases_of = wanted or {1: set(states), 2: set(states)}
    return PlanInput(
        1, now_s, snapshot(holders), {node: frozenset(leases) for node, leases in leases_of.items()}, states, version,
        requests or {}, reclaimable, may_acquire,
    )  # fmt: skip


def plan(*args: object, memory: PlanState = EMPTY, **kwargs: object) -> Plan:
    return make_plan(plan_input(*args, **kwargs), memory)[0]  # type: ignore[arg-type]


def test_a_node_has_time_to_act_and_not_more() -> None:
    """After a restart the reclaiming is over before a node counts as unresponsive, and that soon."""
    assert STANDBY_POLL_S < RECLAIM_WINDOW_S
    assert max(2 * STANDBY_POLL_S, RECLAIM_WINDOW_S) < UNRESPONSIVE_AFTER_S < 2.0


def test_a_free_lease_of_ours_is_acquired() -> None:
    """Of two free leases each of two nodes acquires one."""
    assert plan({}, {1: A, 2: A}).acquire == (1,)


def test_a_lease_of_anothers_share_is_left_alone() -> None:
    """What the other node holds as its share is neither acquired nor requested."""
    assert plan({1: 2}, {1: A}) == Plan()


def test_a_lease_of_ours_that_another_holds_is_requested() -> None:
    """Of a node that holds two more than we do, one lease is requested."""
    assert plan({1: 2, 2: 2}, {1: A, 2: A}).request == (2,)


def test_a_lease_held_by_a_session_that_is_no_node_is_waited_for() -> None:
    """No node could revoke it."""
    assert plan({1: 0}, {1: A}, wanted={1: {1}}) == Plan()


def test_a_request_is_checked_before_a_lease_is_revoked() -> None:
    """A lease is revoked for the node whose share it is, and for no other."""
    holders, states = {1: 1, 2: 1}, {1: H, 2: H}
    assert plan(holders, states, requests={2: 2}).revoke == (2,)
    assert plan(holders, states, requests={1: 2}).revoke == ()
    assert plan(holders, states, requests={2: 3}).revoke == ()
    assert plan({1: 1}, {1: H}, requests={1: 2}).revoke == ()


def test_what_is_not_held_any_more_is_lost() -> None:
    """A lease that we trust and that another node, or none, holds is lost, also while its worker ends."""
    states = {1: H, 2: LeaseState.REVOKING, 3: LeaseState.LOST, 4: A, 5: H}
    assert lost_locks(1, snapshot({2: 2, 5: 1}), states) == (1, 2)


def test_a_lock_that_no_lease_uses_is_unclaimed() -> None:
    """A lock of our session is released unless a lease on this node uses it or is about to."""
    states = {1: A, 2: H, 3: LeaseState.ACQUIRING, 4: LeaseState.RELEASING, 5: LeaseState.LOST, 6: LeaseState.REVOKING}
    assert plan(dict.fromkeys([1, 2, 3, 4, 5, 6, 9], 1), states).unclaimed_locks == (1, 9)


def test_after_a_restart_only_reclaimable_leases_are_acquired() -> None:
    """A node that just came back acquires what it held and what was free, and requests and revokes nothing."""
    reclaimable = Reclaimable(own=frozenset({1, 2, 3}), unowned=frozenset({4}))
    states = dict.fromkeys(range(1, 8), A)
    found = plan({}, states, reclaimable=reclaimable, wanted={1: set(states)})
    assert found.acquire == (1, 2, 3, 4)
    # Though the other node has none yet, this one comes back for its own.
    assert set(plan({}, states, reclaimable=reclaimable).acquire) >= {1, 2, 3}
    assert plan({5: 2, 6: 2, 7: 2}, {5: A, 6: A, 7: A}, reclaimable=Reclaimable()).request == ()
    assert plan({1: 1, 2: 1}, {1: H, 2: H}, reclaimable=Reclaimable(), requests={2: 2}).revoke == ()


def test_a_draining_node_acquires_nothing_but_revokes() -> None:
    """A node that drains, or cannot acquire now, acquires and requests nothing, and still revokes on request."""
    assert plan({}, {1: A}, may_acquire=False) == Plan()
    assert plan({1: 1, 2: 1}, {1: H, 2: H}, may_acquire=False, requests={2: 2}).revoke == (2,)


def test_what_its_node_does_not_acquire_is_acquired_by_another() -> None:
    """A free lease of another node's share is acquired after a while, and that node is unresponsive until it acts."""
    states = {1: H, 2: A}
    first, memory = make_plan(plan_input({1: 1}, states), EMPTY)
    assert first == Plan()
    assert memory.unclaimed == {2: (2, 100.0)}
    early, memory = make_plan(plan_input({1: 1}, states, now_s=100.0 + UNRESPONSIVE_AFTER_S - 0.1), memory)
    assert early == Plan()
    late, memory = make_plan(plan_input({1: 1}, states, now_s=100.0 + UNRESPONSIVE_AFTER_S), memory)
    assert late.acquire == (2,)
    assert memory.unresponsive == {2: frozenset()}
    # Held by us now, it is not revoked for the unresponsive node until that requests it.
    held = {1: H, 2: H}
    still, memory = make_plan(plan_input({1: 1, 2: 1}, held, now_s=102.0), memory)
    assert (still, set(memory.unresponsive)) == (Plan(), {2})
    asked, memory = make_plan(plan_input({1: 1, 2: 1}, held, now_s=103.0, requests={2: 2}), memory)
    assert (asked.revoke, set(memory.unresponsive)) == ((2,), set())


def test_what_has_not_changed_is_not_planned_again() -> None:
    """After an unchanged snapshot only requests are repeated; a change on this node, or a request, makes a new plan."""
    cache, states = PlanCache(), {1: A, 2: A, 3: A}
    holders = {1: 2, 2: 2}
    first = cache.update(plan_input(holders, states))
    assert (first.acquire, first.request) == ((3,), ())
    assert cache.update(plan_input(holders, states, now_s=101.0)) == Plan()
    assert cache.update(plan_input(holders, states, now_s=102.0, version=2)) == first
    assert cache.update(plan_input(holders, states, now_s=103.0, version=2, requests={1: 2})) == first
    more = {1: 2, 2: 2, 3: 2}
    requests = cache.update(plan_input(more, states, version=2)).request
    assert requests
    assert cache.update(plan_input(more, states, version=2)) == Plan(request=requests)
    cache.clear()
    assert cache.update(plan_input(holders, states, version=2)) == first


def test_time_counts_while_another_node_leaves_a_lease_unclaimed() -> None:
    """An unchanged snapshot is planned again while a free lease waits for its node."""
    cache, states = PlanCache(), {1: H, 2: A}
    assert cache.update(plan_input({1: 1}, states)) == Plan()
    assert cache.update(plan_input({1: 1}, states, now_s=100.0 + UNRESPONSIVE_AFTER_S)).acquire == (2,)


class Cluster:
    """Nodes that act one after the other, on locks that all see at once."""

    def __init__(self, wanted: Mapping[int, frozenset[int]], frozen: set[int]) -> None:
        self.wanted = wanted
        self.frozen = frozen
        self.holders: dict[int, int] = {}
        self.plan_states = dict.fromkeys(wanted, EMPTY)
        self.requests: dict[int, dict[int, int]] = {node: {} for node in wanted}
        self.now_s = 0.0
        self.moves = 0

    def tick(self, node: int) -> None:
        """Let a node take a snapshot, make a plan and carry it out."""
        self.now_s += 0.1
        if node in self.frozen:
            return
        states = {lease: H if self.holders.get(lease) == node else A for lease in self.wanted[node]}
        asked, self.requests[node] = self.requests[node], {}
        seen = PlanInput(
            node, self.now_s, snapshot(self.holders, tuple(self.wanted)), self.wanted, states, 1, asked, None, True
        )  # fmt: skip
        plan, self.plan_states[node] = make_plan(seen, self.plan_states[node])
        assert not lost_locks(node, seen.snapshot, states)
        assert not plan.unclaimed_locks
        for lease in plan.revoke:
            del self.holders[lease]
        for lease in plan.acquire:
            assert lease not in self.holders
            self.holders[lease] = node
            self.moves += 1
        for lease in plan.request:
            self.requests[self.holders[lease]][lease] = node


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Cluster, list[int]]:
    nodes = draw(st.integers(1, 5))
    leases = draw(st.integers(0, 12))
    everything = frozenset(range(1, leases + 1))
    some = st.sets(st.sampled_from(sorted(everything))) if leases else st.just(set[int]())
    wanted = {
        node: everything if draw(st.booleans()) else frozenset(draw(some)) for node in range(1, nodes + 1)
    }  # fmt: skip
    frozen = draw(st.sets(st.sampled_from(sorted(wanted)), max_size=nodes - 1))
    order = draw(st.lists(st.sampled_from(sorted(wanted)), max_size=40))
    return Cluster(wanted, frozen), order


@settings(max_examples=150)
@given(clusters())
def test_every_cluster_comes_to_rest(drawn: tuple[Cluster, list[int]]) -> None:
    """In whatever order nodes act, whichever are frozen: those that act hold everything, fairly, and it stays so."""
    them, order = drawn
    for node in order:
        them.tick(node)
    for _ in range(60):
        for node in them.wanted:
            them.tick(node)
    acting = {node: leases for node, leases in them.wanted.items() if node not in them.frozen}
    wanted = {lease for leases in acting.values() for lease in leases}
    assert set(them.holders) == wanted
    if not them.frozen:  # else some wait for what a frozen node should take, for as long as the server keeps that one
        assert assign([Candidate(node, leases) for node, leases in acting.items()], them.holders) == them.holders
    assert not set(them.holders.values()) & them.frozen
    moves = them.moves
    for _ in range(30):
        for node in them.wanted:
            them.tick(node)
    assert them.moves == moves
    if not them.frozen and all(leases == wanted for leases in acting.values()) and wanted:
        loads = Counter(them.holders.values())
        assert max(loads.values()) - min(loads.get(node, 0) for node in acting) <= 1
