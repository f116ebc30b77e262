"""Fair shares: everything wanted is held, in balance, and nothing moves that need not."""

from __future__ import annotations

import time
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.leases.assignment import Candidate, assign

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from random import Random

LEASES = st.integers(1, 40)
NODES = st.integers(1, 9)
HOLDERS = st.dictionaries(LEASES, st.integers(0, 10))
WISHES = st.dictionaries(NODES, st.frozensets(LEASES), max_size=7)


def willing(wishes: Mapping[int, frozenset[int]]) -> list[Candidate]:
    """Nodes with wishes of their own."""
    return [Candidate(node, wants) for node, wants in wishes.items()]


def alike(nodes: Iterable[int], leases: int) -> list[Candidate]:
    """Nodes that all want the leases from 1 to `leases`; each set is its own, as in what comes from a database."""
    return [Candidate(node, frozenset(range(1, leases + 1))) for node in nodes]


def loads(members: Iterable[Candidate], shares: Mapping[int, int]) -> dict[int, int]:
    """How many leases each member has."""
    held = list(shares.values())
    return {member.id: held.count(member.id) for member in members}


def spread(members: list[Candidate], shares: Mapping[int, int]) -> int:
    """How many more the fullest member has than the emptiest."""
    counts = loads(members, shares).values()
    return max(counts) - min(counts)


def moved(before: Mapping[int, int], after: Mapping[int, int]) -> set[int]:
    """The leases of both that have changed hands."""
    return {lease for lease in before.keys() & after.keys() if before[lease] != after[lease]}


@given(WISHES, HOLDERS)
def test_every_wanted_lease_gets_a_node_that_wants_it(
    wishes: dict[int, frozenset[int]], holders: dict[int, int]
) -> None:
    """Every lease that some node wants goes to one of those that do, and no other lease is dealt out."""
    shares = assign(willing(wishes), holders)
    assert shares.keys() == frozenset().union(*wishes.values())
    assert all(lease in wishes[node] for lease, node in shares.items())


@given(WISHES, HOLDERS)
def test_what_is_fair_stays(wishes: dict[int, frozenset[int]], holders: dict[int, int]) -> None:
    """Applied and computed again, the shares are the same: no lease wanders to and fro."""
    shares = assign(willing(wishes), holders)
    assert assign(willing(wishes), shares) == shares


@given(WISHES, HOLDERS, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    wishes: dict[int, frozenset[int]], holders: dict[int, int], rng: Random
) -> None:
    """Nodes that read the same rows in another order come to the same shares."""
    members, held = willing(wishes), list(holders.items())
    expected = assign(members, holders)
    rng.shuffle(members)
    rng.shuffle(held)
    assert assign(
        [Candidate(each.id, frozenset(sorted(each.wanted, reverse=True))) for each in members], dict(held)
    ) == (expected)


@given(WISHES, HOLDERS)
def test_no_hand_over_would_make_it_fairer(wishes: dict[int, frozenset[int]], holders: dict[int, int]) -> None:
    """No node has two more than one that a lease could reach from it, over however many other nodes."""
    members = willing(wishes)
    shares = assign(members, holders)
    counts = loads(members, shares)
    for node in wishes:
        reached = [node]
        for giver in reached:
            heirs = {heir for heir, wants in wishes.items() if any(shares[lease] == giver for lease in wants)}
            reached += sorted(heirs - set(reached))
        assert counts[node] < min(counts[heir] for heir in reached) + 2


@given(st.sets(NODES, min_size=1), st.integers(0, 60), HOLDERS)
def test_nodes_that_want_the_same_have_the_same_but_one(nodes: set[int], leases: int, holders: dict[int, int]) -> None:
    """Where all want all, nobody holds two more than another, wherever the leases were before."""
    members = alike(nodes, leases)
    assert spread(members, assign(members, holders)) <= 1


@given(st.sets(NODES, min_size=1), st.integers(0, 60), NODES)
def test_a_node_that_joins_gets_its_share_and_no_more_moves(nodes: set[int], leases: int, newcomer: int) -> None:
    """A node that joins is given its fair share by the others, which exchange nothing among themselves."""
    before = assign(alike(nodes - {newcomer}, leases), {})
    members = alike(nodes | {newcomer}, leases)
    after = assign(members, before)
    assert spread(members, after) <= 1
    assert all(after[lease] == newcomer for lease in moved(before, after))
    assert len(moved(before, after)) <= ceil(leases / len(members))


@given(st.sets(NODES, min_size=2), st.integers(0, 60), st.data())
def test_only_the_leases_of_a_node_that_left_move(nodes: set[int], leases: int, data: st.DataObject) -> None:
    """What a node leaves behind is spread over the others, which keep what they have."""
    before = assign(alike(nodes, leases), {})
    gone = data.draw(st.sampled_from(sorted(nodes)))
    members = alike(nodes - {gone}, leases)
    after = assign(members, before)
    assert spread(members, after) <= 1
    assert moved(before, after) == {lease for lease, node in before.items() if node == gone}


@given(st.sets(NODES, min_size=1), st.integers(0, 40), HOLDERS, st.data())
def test_half_done_is_halfway_there(nodes: set[int], leases: int, holders: dict[int, int], data: st.DataObject) -> None:
    """When some of the hand-overs have happened, exactly as many as are missing remain: no detours."""
    members = alike(nodes, leases)
    held = {lease: node for lease, node in holders.items() if node in nodes and lease <= leases}
    shares = assign(members, held)
    due = sorted(moved(held, shares))
    done = data.draw(st.lists(st.sampled_from(due), unique=True)) if due else []
    halfway = held | {lease: shares[lease] for lease in done}
    assert len(moved(halfway, assign(members, halfway))) == len(due) - len(done)


def test_a_chain_of_hand_overs_where_wishes_differ() -> None:
    """A node that nobody full can hand anything to is helped by one that can, which is helped in turn."""
    members = [Candidate(1, frozenset({1, 2, 3})), Candidate(2, frozenset({3, 4})), Candidate(3, frozenset({4}))]
    assert assign(members, {1: 1, 2: 1, 3: 1, 4: 2}) == {1: 1, 2: 1, 3: 2, 4: 3}


@pytest.mark.parametrize("full", [{}, dict.fromkeys(range(1, 1001), 1)], ids=["free", "all-on-one"])
def test_a_thousand_leases_are_dealt_out_at_once(full: dict[int, int]) -> None:
    """A thousand leases over four nodes cost milliseconds of the loop, also when one holds them all."""
    members = alike(range(1, 5), 1000)
    took_s = []
    for _ in range(5):
        began_s = time.process_time()
        shares = assign(members, full)
        took_s.append(time.process_time() - began_s)
    assert set(loads(members, shares).values()) == {250}
    assert min(took_s) < 0.1


def test_members_come_and_go_without_wandering() -> None:
    """Over joins and deaths in a row, each step moves no more than it must."""
    rosters = [{1}, {1, 2}, {1, 2, 3}, {1, 3}, {1, 3, 4, 5}, {4, 5}]
    steps = []
    shares: dict[int, int] = {}
    for before, after in pairwise([set[int](), *rosters]):
        new = assign(alike(after, 60), shares)
        steps.append(len(moved(shares, new)))
        assert after - before <= set(new.values())
        shares = new
    assert steps == [0, 30, 20, 20, 30, 30]
