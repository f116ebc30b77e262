"""What follows from a look: single decisions, and a whole cluster of nodes that decide in any order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.leases.look import ClusterSnapshot
from supervisor.leases.plan import DULL_AFTER_S, NOTHING, Familiar, Memory, Plan, Situation, decide, missing
from supervisor.leases.share import Member, assign
from supervisor.leases.stand import LeaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

A, H = LeaseState.NOT_HELD, LeaseState.HELD


def look(holders: Mapping[int, int], nodes: tuple[int, ...] = (1, 2)) -> ClusterSnapshot:
    leases = sorted(holders)
    return ClusterSnapshot(0.0, 99, True, list(nodes), 1, leases, [holders[lease] for lease in leases], 0, False)


def situation(
    holders: Mapping[int, int],
    states: Mapping[int, LeaseState],
    *,
    wants: Mapping[int, set[int]] | None = None,
    requests: Mapping[int, int] | None = None,
    familiar: Familiar | None = None,
    now_s: float = 100.0,
    may_take: bool = True,
) -> Situation:
    """Return node 1's situation; both nodes want everything unless told otherwise."""
    wished = wants or {1: set(states), 2: set(states)}
    return Situation(
        1, now_s, look(holders), {node: frozenset(leases) for node, leases in wished.items()}, states, requests or {},
        familiar, may_take,
    )  # fmt: skip


def plan(*args: object, memory: Memory = NOTHING, **kwargs: object) -> Plan:
    return decide(situation(*args, **kwargs), memory)[0]  # type: ignore[arg-type]


def test_a_free_lease_that_is_ours_is_tried() -> None:
    """Of two free leases each of two nodes takes one."""
    assert plan({}, {1: A, 2: A}).tries == (1,)


def test_a_lease_of_anothers_share_is_left_alone() -> None:
    """What the other holds by right is neither tried nor asked for."""
    assert plan({1: 2}, {1: A}) == Plan()


def test_a_lease_of_ours_that_another_holds_is_asked_for() -> None:
    """Who holds two more than we do is asked for one, and only the holder decides to give it."""
    assert plan({1: 2, 2: 2}, {1: A, 2: A}).asks == (2,)


def test_a_lease_held_by_a_session_that_is_no_node_is_waited_for() -> None:
    """There is nobody to ask."""
    assert plan({1: 0}, {1: A}, wants={1: {1}}) == Plan()


def test_a_request_is_checked_before_a_lease_is_given() -> None:
    """A lease is recalled for the node that should have it, and for no other."""
    holders, states = {1: 1, 2: 1}, {1: H, 2: H}
    assert plan(holders, states, requests={2: 2}).recalls == (2,)
    assert plan(holders, states, requests={1: 2}).recalls == ()
    assert plan(holders, states, requests={2: 3}).recalls == ()
    assert plan({1: 1}, {1: H}, requests={1: 2}).recalls == ()


def test_what_is_not_held_any_more_is_lost() -> None:
    """A lease that we believe in and that another, or nobody, holds is lost, also while its worker ends."""
    states = {1: H, 2: LeaseState.REVOKING, 3: LeaseState.LOST, 4: A, 5: H}
    assert missing(1, look({2: 2, 5: 1}), states) == (1, 2)


def test_a_lock_that_nobody_stands_for_is_a_stray() -> None:
    """A lock of ours is given back unless a stand has it or is about to."""
    states = {1: A, 2: H, 3: LeaseState.ACQUIRING, 4: LeaseState.RELEASING, 5: LeaseState.LOST, 6: LeaseState.REVOKING}
    assert plan(dict.fromkeys([1, 2, 3, 4, 5, 6, 9], 1), states).strays == (1, 9)


def test_after_a_restart_only_what_nobody_else_comes_back_for_is_taken() -> None:
    """A node that just came back takes what it held and what was free, asks for nothing and gives nothing."""
    familiar = Familiar(own=frozenset({1, 2, 3}), nobodys=frozenset({4}))
    states = dict.fromkeys(range(1, 8), A)
    found = plan({}, states, familiar=familiar, wants={1: set(states)})
    assert found.tries == (1, 2, 3, 4)
    # Though the other one has none yet, it comes back for its own.
    assert set(plan({}, states, familiar=familiar).tries) >= {1, 2, 3}
    assert plan({5: 2, 6: 2, 7: 2}, {5: A, 6: A, 7: A}, familiar=Familiar()).asks == ()
    assert plan({1: 1, 2: 1}, {1: H, 2: H}, familiar=Familiar(), requests={2: 2}).recalls == ()


def test_a_node_that_withdraws_takes_nothing_but_gives() -> None:
    """Who stops, or cannot take at the moment, tries and asks for nothing, and still gives what it is rightly asked."""
    assert plan({}, {1: A}, may_take=False) == Plan()
    assert plan({1: 1, 2: 1}, {1: H, 2: H}, may_take=False, requests={2: 2}).recalls == (2,)


def test_what_its_node_does_not_take_is_taken_by_another() -> None:
    """A free lease of another node's share is taken after a while, and then that node counts as dull until it acts."""
    states = {1: H, 2: A}
    first, memory = decide(situation({1: 1}, states), NOTHING)
    assert first == Plan()
    assert memory.idle == {2: (2, 100.0)}
    early, memory = decide(situation({1: 1}, states, now_s=100.0 + DULL_AFTER_S - 0.1), memory)
    assert early == Plan()
    late, memory = decide(situation({1: 1}, states, now_s=100.0 + DULL_AFTER_S), memory)
    assert late.tries == (2,)
    assert memory.dull == {2: frozenset()}
    # Held by us now, it is not given to the dull one, until that asks.
    held = {1: H, 2: H}
    still, memory = decide(situation({1: 1, 2: 1}, held, now_s=102.0), memory)
    assert (still, set(memory.dull)) == (Plan(), {2})
    asked, memory = decide(situation({1: 1, 2: 1}, held, now_s=103.0, requests={2: 2}), memory)
    assert (asked.recalls, set(memory.dull)) == ((2,), set())


class Cluster:
    """Nodes that decide one after the other, on locks that all see at once."""

    def __init__(self, wants: Mapping[int, frozenset[int]], frozen: set[int]) -> None:
        self.wants = wants
        self.frozen = frozen
        self.holders: dict[int, int] = {}
        self.memories = dict.fromkeys(wants, NOTHING)
        self.requests: dict[int, dict[int, int]] = {node: {} for node in wants}
        self.now_s = 0.0
        self.moves = 0

    def turn(self, node: int) -> None:
        """Let a node look, decide and act."""
        self.now_s += 0.1
        if node in self.frozen:
            return
        states = {lease: H if self.holders.get(lease) == node else A for lease in self.wants[node]}
        asked, self.requests[node] = self.requests[node], {}
        seen = Situation(
            node, self.now_s, look(self.holders, tuple(self.wants)), self.wants, states, asked, None, True
        )  # fmt: skip
        plan, self.memories[node] = decide(seen, self.memories[node])
        assert not missing(node, seen.look, states)
        assert not plan.strays
        for lease in plan.recalls:
            del self.holders[lease]
        for lease in plan.tries:
            assert lease not in self.holders
            self.holders[lease] = node
            self.moves += 1
        for lease in plan.asks:
            self.requests[self.holders[lease]][lease] = node


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Cluster, list[int]]:
    nodes = draw(st.integers(1, 5))
    leases = draw(st.integers(0, 12))
    everything = frozenset(range(1, leases + 1))
    some = st.sets(st.sampled_from(sorted(everything))) if leases else st.just(set[int]())
    wants = {
        node: everything if draw(st.booleans()) else frozenset(draw(some)) for node in range(1, nodes + 1)
    }  # fmt: skip
    frozen = draw(st.sets(st.sampled_from(sorted(wants)), max_size=nodes - 1))
    order = draw(st.lists(st.sampled_from(sorted(wants)), max_size=40))
    return Cluster(wants, frozen), order


@settings(max_examples=150)
@given(clusters())
def test_every_cluster_comes_to_rest(drawn: tuple[Cluster, list[int]]) -> None:
    """In whatever order nodes act, whichever are frozen: those that act hold everything, fairly, and it stays so."""
    them, order = drawn
    for node in order:
        them.turn(node)
    for _ in range(60):
        for node in them.wants:
            them.turn(node)
    acting = {node: leases for node, leases in them.wants.items() if node not in them.frozen}
    wanted = {lease for leases in acting.values() for lease in leases}
    assert set(them.holders) == wanted
    if not them.frozen:  # else some wait for what a frozen node should take, for as long as the server keeps that one
        assert assign([Member(node, leases) for node, leases in acting.items()], them.holders) == them.holders
    assert not set(them.holders.values()) & them.frozen
    moves = them.moves
    for _ in range(30):
        for node in them.wants:
            them.turn(node)
    assert them.moves == moves
    if not them.frozen and all(leases == wanted for leases in acting.values()) and wanted:
        loads = Counter(them.holders.values())
        assert max(loads.values()) - min(loads.get(node, 0) for node in acting) <= 1
