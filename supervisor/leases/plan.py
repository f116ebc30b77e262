"""What a node does after a snapshot: which leases to acquire, to request, to revoke, and which are lost; pure.

No node leads. Every node computes the same shares (`assignment.py`), acquires those of its own share that are free,
and requests those that another node holds. The holder checks a request against its own snapshot before it revokes the
lease. So a frozen node is never handed a lease, because it requests none, and no lease moves back and forth.

A free lease that its node does not acquire in time is assigned again without that node. The node counts as
*unresponsive* until it acquires or requests a lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.leases.assignment import Candidate, assign
from supervisor.leases.local_lease import TRUSTED, LeaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.leases.snapshot import ClusterSnapshot

# Two snapshots and an acquisition; above the time that a node gives others to come back after a restart.
UNRESPONSIVE_AFTER_S = 1.2
# After a restart of the server every node comes back within this time, in any order.
RECLAIM_WINDOW_S = 0.7


class Reclaimable(NamedTuple):
    """The leases that no other node will come back for.

    Attributes:
        own: Those that this node held last.
        unowned: Those that were given back, or never held.
    """

    own: frozenset[int] = frozenset()
    unowned: frozenset[int] = frozenset()

    def has(self, lease: int) -> bool:
        """Whether a lease is one of them."""
        return lease in self.own or lease in self.unowned


class PlanInput(NamedTuple):
    """What is known when a plan is made.

    Attributes:
        me: This node.
        now_s: The time.
        snapshot: The newest snapshot.
        wanted: The leases that each living node is ready to hold, this one included.
        states: The states of the leases on this node.
        version: Grows with each change of a lease on this node, also with one that was changed back.
        requests: Which node requested which lease.
        reclaimable: While others may yet come back: the leases that may be acquired all the same. None: all may.
        may_acquire: Whether this node acquires anything at all now.
    """

    me: int
    now_s: float
    snapshot: ClusterSnapshot
    wanted: Mapping[int, frozenset[int]]
    states: Mapping[int, LeaseState]
    version: int
    requests: Mapping[int, int]
    reclaimable: Reclaimable | None
    may_acquire: bool

    def equals(self, other: PlanInput | None) -> bool:
        """Whether nothing but the time and the requests has changed; `version` and the snapshot cover the mappings."""
        return (
            other is not None
            and self.version == other.version
            and self.reclaimable == other.reclaimable
            and self.may_acquire == other.may_acquire
            and self.snapshot.equals(other.snapshot)
        )


class PlanState(NamedTuple):
    """What is remembered from one plan to the next.

    Attributes:
        unclaimed: Free leases that another node should acquire: which node, and since when.
        unresponsive: Nodes that left an assigned free lease unclaimed, with what they held then.
    """

    unclaimed: Mapping[int, tuple[int, float]]
    unresponsive: Mapping[int, frozenset[int]]


class Plan(NamedTuple):
    """What is to be done, each a list of leases.

    Attributes:
        unclaimed_locks: Locks that this node's session holds and no lease of this node uses: release them.
        acquire: Free, and of this node's share.
        request: Of this node's share, and held by another node.
        revoke: Held here, and requested by the node whose share they are.
    """

    unclaimed_locks: tuple[int, ...] = ()
    acquire: tuple[int, ...] = ()
    request: tuple[int, ...] = ()
    revoke: tuple[int, ...] = ()


EMPTY = PlanState({}, {})


class PlanCache:
    """The last plan and what it was made from: a thousand leases are not assigned twice a second for nothing."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything: the node's session is a new one."""
        self._state = EMPTY
        self._plan = Plan()
        self._input: PlanInput | None = None

    def update(self, plan_input: PlanInput) -> Plan:
        """Return what to do now; where nothing has changed that is to repeat the requests, and no more."""
        is_due = bool(plan_input.requests or self._state.unclaimed)
        if not is_due and plan_input.equals(self._input):
            return Plan(request=self._plan.request)
        self._plan, self._state = make_plan(plan_input, self._state)
        self._input = plan_input
        return self._plan


def lost_locks(me: int, snapshot: ClusterSnapshot, states: Mapping[int, LeaseState]) -> tuple[int, ...]:
    """Return the leases under which a worker may run here and whose locks this node's session does not hold."""
    trusted = [lease for lease, state in states.items() if state in TRUSTED]
    if not trusted:
        return ()
    own = {lease for lease, holder in zip(snapshot.leases, snapshot.holders, strict=True) if holder == me}
    return tuple(lease for lease in trusted if lease not in own)


def make_plan(plan_input: PlanInput, state: PlanState) -> tuple[Plan, PlanState]:
    """Return what to do and what to remember."""
    me, states = plan_input.me, plan_input.states
    holders = plan_input.snapshot.holder_by_lease()
    own = {lease for lease, holder in holders.items() if holder == me}
    unclaimed_locks = tuple(lease for lease in own if states.get(lease, LeaseState.NOT_HELD) is LeaseState.NOT_HELD)
    shares, new_state = _assign(plan_input, state, holders)
    revoke = _revoke(plan_input, shares)
    if not plan_input.may_acquire:
        return Plan(unclaimed_locks, revoke=revoke), new_state
    free = [lease for lease in plan_input.wanted.get(me, ()) if states.get(lease) is LeaseState.NOT_HELD]
    mine = sorted(lease for lease in free if shares.get(lease) == me)
    reclaimable = plan_input.reclaimable
    acquire = tuple(lease for lease in mine if lease not in holders and (reclaimable is None or reclaimable.has(lease)))
    # A node that just came back does not know yet which others will.
    request = tuple(lease for lease in mine if holders.get(lease, me) not in (me, 0)) if reclaimable is None else ()
    return Plan(unclaimed_locks, acquire, request, revoke), new_state


def _revoke(plan_input: PlanInput, shares: Mapping[int, int]) -> tuple[int, ...]:
    if plan_input.reclaimable is not None:
        return ()
    me, states = plan_input.me, plan_input.states
    return tuple(
        lease
        for lease, node in plan_input.requests.items()
        if node != me and shares.get(lease) == node and states.get(lease) is LeaseState.HELD
    )


def _assign(plan_input: PlanInput, state: PlanState, holders: Mapping[int, int]) -> tuple[Mapping[int, int], PlanState]:
    """Assign the leases, and again without those nodes that turn out to be unresponsive."""
    me, now_s = plan_input.me, plan_input.now_s
    unresponsive = _still_unresponsive(plan_input, state, holders)
    # After a restart of the server every lease is free, and goes back to where it was.
    own = plan_input.reclaimable.own if plan_input.reclaimable is not None else frozenset[int]()
    current = {**dict.fromkeys(own, me), **holders}
    while True:
        shares = assign(_candidates(plan_input.wanted, unresponsive), current)
        unclaimed: dict[int, tuple[int, float]] = {}
        late: set[int] = set()
        for lease, node in shares.items():
            if node == me or lease in holders:
                continue
            former = state.unclaimed.get(lease)
            since_s = former[1] if former is not None and former[0] == node else now_s
            unclaimed[lease] = (node, since_s)
            if now_s >= since_s + UNRESPONSIVE_AFTER_S:
                late.add(node)
        if not late:
            return shares, PlanState(unclaimed, unresponsive)
        unresponsive |= {node: _held_by(node, holders) for node in late}


def _still_unresponsive(
    plan_input: PlanInput, state: PlanState, holders: Mapping[int, int]
) -> dict[int, frozenset[int]]:
    requesting = set(plan_input.requests.values())
    return {
        node: held
        for node, held in state.unresponsive.items()
        if node in plan_input.wanted and node not in requesting and _held_by(node, holders) <= held
    }


def _candidates(wanted: Mapping[int, frozenset[int]], unresponsive: Mapping[int, frozenset[int]]) -> list[Candidate]:
    """Return all nodes; an unresponsive one may keep what it holds, and gets nothing new."""
    return [
        Candidate(node, leases & unresponsive[node] if node in unresponsive else leases)
        for node, leases in wanted.items()
    ]


def _held_by(node: int, holders: Mapping[int, int]) -> frozenset[int]:
    return frozenset(lease for lease, holder in holders.items() if holder == node)
