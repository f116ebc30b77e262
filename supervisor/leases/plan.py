"""What a node does after a look: which leases to take, to ask for, to give back, and which are gone; pure.

Nobody leads. Every node deals the leases out alike (`share.py`), takes those that are its own and free, and asks the
holder for those that are its own and held elsewhere. The holder checks it by its own view before it gives a lease
back. So a node that is frozen is never handed anything, because it does not ask, and no lease wanders to and fro.

A free lease that its node does not take in time is dealt out again without that node, which counts as *dull* until it
takes or asks for something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.leases.share import Member, assign
from supervisor.leases.stand import LeaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.leases.look import ClusterSnapshot

# Two looks and a take; above the time that a node gives others to come back after a restart.
DULL_AFTER_S = 1.2
# After a restart of the server every node comes back within this time, in any order.
SETTLE_S = 0.7


class Familiar(NamedTuple):
    """The leases that nobody else will come back for.

    Attributes:
        own: Those that this node held last.
        nobodys: Those that were given back, or never held.
    """

    own: frozenset[int] = frozenset()
    nobodys: frozenset[int] = frozenset()

    def has(self, lease: int) -> bool:
        """Whether a lease is one of them."""
        return lease in self.own or lease in self.nobodys


class Situation(NamedTuple):
    """What is known at the moment of a decision.

    Attributes:
        me: This node.
        now_s: The time.
        look: What was just seen.
        wants: The leases that each living node is ready to hold, this one included.
        states: Where this node's stands are.
        requests: Which node asked for which lease.
        familiar: While others may yet come back: the leases that may be taken all the same. None: all may.
        may_take: Whether this node takes anything at all now.
    """

    me: int
    now_s: float
    look: ClusterSnapshot
    wants: Mapping[int, frozenset[int]]
    states: Mapping[int, LeaseState]
    requests: Mapping[int, int]
    familiar: Familiar | None
    may_take: bool


class Memory(NamedTuple):
    """What is remembered from one decision to the next.

    Attributes:
        idle: Free leases that another node should take: which one, and since when.
        dull: Nodes that did not take theirs, with what they held then.
    """

    idle: Mapping[int, tuple[int, float]]
    dull: Mapping[int, frozenset[int]]


class Plan(NamedTuple):
    """What is to be done, each a list of leases.

    Attributes:
        strays: Held here, and nobody stands for them.
        tries: Free, and this node's to take.
        asks: To be asked of their holders.
        recalls: To be given back, because another node has asked for them rightly.
    """

    strays: tuple[int, ...] = ()
    tries: tuple[int, ...] = ()
    asks: tuple[int, ...] = ()
    recalls: tuple[int, ...] = ()


NOTHING = Memory({}, {})
_BELIEVED = frozenset({LeaseState.HELD, LeaseState.REVOKING})


def missing(me: int, look: ClusterSnapshot, states: Mapping[int, LeaseState]) -> tuple[int, ...]:
    """Return the leases that are believed to be held here, and whose locks this node's session does not hold."""
    believed = [lease for lease, state in states.items() if state in _BELIEVED]
    if not believed:
        return ()
    own = {lease for lease, holder in zip(look.leases, look.holders, strict=True) if holder == me}
    return tuple(lease for lease in believed if lease not in own)


def decide(situation: Situation, memory: Memory) -> tuple[Plan, Memory]:
    """Return what to do and what to remember."""
    me, states = situation.me, situation.states
    holder_of = situation.look.holder_of()
    own = {lease for lease, holder in holder_of.items() if holder == me}
    strays = tuple(lease for lease in own if states.get(lease, LeaseState.NOT_HELD) is LeaseState.NOT_HELD)
    dull = _still_dull(situation, memory, holder_of)
    shares, idle, dull = _deal(situation, memory, holder_of, dull)
    if not situation.may_take:
        return Plan(strays, recalls=_recalls(situation, shares)), Memory(idle, dull)
    open_ = [lease for lease in situation.wants.get(me, ()) if states.get(lease) is LeaseState.NOT_HELD]
    mine = sorted(lease for lease in open_ if shares.get(lease) == me)
    familiar = situation.familiar
    tries = tuple(lease for lease in mine if lease not in holder_of and (familiar is None or familiar.has(lease)))
    # Who just came back does not know yet who else does.
    asks = tuple(lease for lease in mine if holder_of.get(lease, me) not in (me, 0)) if familiar is None else ()
    return Plan(strays, tries, asks, _recalls(situation, shares)), Memory(idle, dull)


def _recalls(situation: Situation, shares: Mapping[int, int]) -> tuple[int, ...]:
    if situation.familiar is not None:
        return ()
    return tuple(
        lease
        for lease, asker in situation.requests.items()
        if asker != situation.me and shares.get(lease) == asker and situation.states.get(lease) is LeaseState.HELD
    )


def _still_dull(situation: Situation, memory: Memory, holder_of: Mapping[int, int]) -> dict[int, frozenset[int]]:
    asking = set(situation.requests.values())
    return {
        node: held
        for node, held in memory.dull.items()
        if node in situation.wants and node not in asking and _held_by(node, holder_of) <= held
    }


def _deal(
    situation: Situation, memory: Memory, holder_of: Mapping[int, int], dull: dict[int, frozenset[int]]
) -> tuple[Mapping[int, int], dict[int, tuple[int, float]], dict[int, frozenset[int]]]:
    """Deal the leases out, and again without those that turn out to be dull."""
    me, now_s = situation.me, situation.now_s
    # After a restart of the server every lease is free, and goes back to where it was.
    own = situation.familiar.own if situation.familiar is not None else frozenset[int]()
    settled = {**dict.fromkeys(own, me), **holder_of}
    while True:
        shares = assign(_members(situation.wants, dull), settled)
        idle: dict[int, tuple[int, float]] = {}
        late: set[int] = set()
        for lease, node in shares.items():
            if node == me or lease in holder_of:
                continue
            former = memory.idle.get(lease)
            since_s = former[1] if former is not None and former[0] == node else now_s
            idle[lease] = (node, since_s)
            if now_s >= since_s + DULL_AFTER_S:
                late.add(node)
        if not late:
            return shares, idle, dull
        dull |= {node: _held_by(node, holder_of) for node in late}


def _members(wants: Mapping[int, frozenset[int]], dull: Mapping[int, frozenset[int]]) -> list[Member]:
    return [Member(node, leases & dull[node] if node in dull else leases) for node, leases in wants.items()]


def _held_by(node: int, holder_of: Mapping[int, int]) -> frozenset[int]:
    return frozenset(lease for lease, holder in holder_of.items() if holder == node)
