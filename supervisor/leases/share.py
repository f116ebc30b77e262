"""Fair shares: which node should hold which lease, decided purely.

Every node computes this from the same look at the database, so nobody has to lead. A lease stays where it is as long
as its holder wants it; one that nobody holds goes to the least loaded node that wants it; and leases move only while
a holder has at least two more than a node that could take over. Where nodes want different leases that may take a
chain: A hands one to B, which hands another to C. What remains is balanced as well as the wishes allow, and computing
it again changes nothing, so leases never wander to and fro.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WORTH_A_MOVE = 2


class Member(NamedTuple):
    """A node that lives.

    Attributes:
        id: The node's row.
        wants: The leases that it is ready to hold.
    """

    id: int
    wants: frozenset[int]


def assign(members: Iterable[Member], holders: Mapping[int, int]) -> dict[int, int]:
    """Return which node should hold each lease that somebody wants.

    Args:
        members: The nodes that live, in any order.
        holders: The node that holds a lease now; a holder that is no member, or does not want it, counts for nothing.
    """
    shares = _Shares(sorted(members, key=lambda member: member.id))
    shares.keep(holders)
    shares.place_the_rest()
    while chain := shares.find_chain():
        shares.move_along(chain)
    return shares.assignment()


class _Shares:
    """The leases of each member while they are dealt out; members go by their place in the order of ids.

    Leases that the same members want are interchangeable. They are of one kind, a bit mask of those members, so that
    a search looks at kinds and not at thousands of leases.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._ids = [member.id for member in members]
        self._kinds = _kinds(members)
        self._of: list[dict[int, list[int]]] = [{} for _ in members]
        self._loads = [0] * len(members)

    def keep(self, holders: Mapping[int, int]) -> None:
        """Leave every lease with the member that holds it and wants it."""
        place_of = {node: place for place, node in enumerate(self._ids)}
        for lease in sorted(holders.keys() & self._kinds.keys()):
            place = place_of.get(holders[lease])
            if place is not None and self._kinds[lease] >> place & 1:
                self._give(place, lease, self._kinds.pop(lease))

    def place_the_rest(self) -> None:
        """Give every other lease to the least loaded member that wants it, those with the least choice first."""
        queues: dict[int, list[tuple[int, int]]] = {}
        for lease, kind in sorted(self._kinds.items(), key=lambda item: (item[1].bit_count(), item[0])):
            queue = queues.get(kind)
            if queue is None:
                queue = queues[kind] = [(load, place) for place, load in enumerate(self._loads) if kind >> place & 1]
                heapify(queue)
            # Other kinds have added to loads since; loads only grow here, so what is on top and true is the least.
            while queue[0][0] != (load := self._loads[queue[0][1]]):
                heapreplace(queue, (load, queue[0][1]))
            place = queue[0][1]
            self._give(place, lease, kind)
            heapreplace(queue, (load + 1, place))

    def find_chain(self) -> list[int] | None:
        """Return members each of which should hand a lease to the next; None: the shares are fair."""
        most = max(self._loads, default=0)
        for last in sorted(range(len(self._loads)), key=self._loads.__getitem__):
            if self._loads[last] + WORTH_A_MOVE > most:
                return None
            heirs = self._heirs(last, most)
            first = max(heirs, key=self._loads.__getitem__)
            if self._loads[first] >= self._loads[last] + WORTH_A_MOVE:
                chain = [first]
                while chain[-1] != last:
                    chain.append(heirs[chain[-1]])
                return chain
        return None

    def move_along(self, chain: list[int]) -> None:
        """Hand one lease from each member of a chain to the next."""
        for giver, heir in pairwise(chain):
            kind = next(kind for kind, leases in self._of[giver].items() if leases and kind >> heir & 1)
            # The last one: those that nobody holds yet were placed last, and to place them elsewhere costs nothing.
            lease = self._of[giver][kind].pop()
            self._loads[giver] -= 1
            self._give(heir, lease, kind)

    def assignment(self) -> dict[int, int]:
        """Return the node of each lease."""
        return {
            lease: node
            for node, kinds in zip(self._ids, self._of, strict=True)
            for leases in kinds.values()
            for lease in leases
        }

    def _give(self, place: int, lease: int, kind: int) -> None:
        self._of[place].setdefault(kind, []).append(lease)
        self._loads[place] += 1

    def _heirs(self, last: int, most: int) -> dict[int, int]:
        """Return, for every member from which a chain leads to `last`, the next one in the shortest such chain.

        It ends early at one that has the most: no other would be chosen.
        """
        heirs = {last: last}
        reached = [last]
        for heir in reached:
            for place, kinds in enumerate(self._of):
                if place not in heirs and _has_for(heir, kinds):
                    heirs[place] = heir
                    if self._loads[place] == most:
                        return heirs
                    reached.append(place)
        return heirs


def _has_for(heir: int, kinds: dict[int, list[int]]) -> bool:
    return any(leases and kind >> heir & 1 for kind, leases in kinds.items())


def _kinds(members: Sequence[Member]) -> dict[int, int]:
    """Return the kind of each lease. Most members want the same ones, and those are gone through once."""
    masks: dict[frozenset[int], int] = {}
    for place, member in enumerate(members):
        masks[member.wants] = masks.get(member.wants, 0) | 1 << place
    kinds: dict[int, int] = {}
    for wants, mask in masks.items():
        for lease in wants:
            kinds[lease] = kinds.get(lease, 0) | mask
    return kinds
