"""Fair shares: which node should hold which lease; pure.

Every node computes this from the same snapshot of the database, so no node has to lead. A lease stays where it is as
long as its holder wants it. A free lease goes to the least loaded node that wants it. Leases move only while a holder
has at least two more than a node that could take over. Where nodes want different leases that may take several
hand-overs: A gives one to B, and B gives another to C. The result is as balanced as the wanted leases allow, and
computing it again changes nothing, so leases never move back and forth.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MIN_IMBALANCE = 2


class Candidate(NamedTuple):
    """A living node.

    Attributes:
        id: The node's row.
        wanted: The leases that it is ready to hold.
    """

    id: int
    wanted: frozenset[int]


def assign(candidates: Iterable[Candidate], holders: Mapping[int, int]) -> dict[int, int]:
    """Return the node that should hold each lease that at least one node wants.

    Args:
        candidates: The living nodes, in any order.
        holders: The node that holds a lease now; a holder that is no candidate, or does not want it, does not count.
    """
    shares = _Shares(sorted(candidates, key=lambda candidate: candidate.id))
    shares.keep_current(holders)
    shares.assign_free()
    while path := shares.find_transfer_path():
        shares.transfer_along(path)
    return shares.assignment()


class _Shares:
    """The leases of each candidate while they are assigned; candidates are numbered in the order of their ids.

    Leases that the same candidates want are interchangeable. They form one group, and a group is a bit mask of those
    candidates, so that a search visits groups and not thousands of leases.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._ids = [candidate.id for candidate in candidates]
        self._groups = _groups(candidates)
        self._held: list[dict[int, list[int]]] = [{} for _ in candidates]
        self._loads = [0] * len(candidates)

    def keep_current(self, holders: Mapping[int, int]) -> None:
        """Leave every lease with the candidate that holds it and wants it."""
        number_of = {node: number for number, node in enumerate(self._ids)}
        for lease in sorted(holders.keys() & self._groups.keys()):
            number = number_of.get(holders[lease])
            if number is not None and self._groups[lease] >> number & 1:
                self._give(number, lease, self._groups.pop(lease))

    def assign_free(self) -> None:
        """Give every other lease to the least loaded candidate that wants it; those that the fewest want come first."""
        queues: dict[int, list[tuple[int, int]]] = {}
        for lease, group in sorted(self._groups.items(), key=lambda item: (item[1].bit_count(), item[0])):
            queue = queues.get(group)
            if queue is None:
                queue = queues[group] = [
                    (load, number) for number, load in enumerate(self._loads) if group >> number & 1
                ]
                heapify(queue)
            # Other groups have added to loads since; loads only grow here, so a top entry that is up to date is the
            # least.
            while queue[0][0] != (load := self._loads[queue[0][1]]):
                heapreplace(queue, (load, queue[0][1]))
            number = queue[0][1]
            self._give(number, lease, group)
            heapreplace(queue, (load + 1, number))

    def find_transfer_path(self) -> list[int] | None:
        """Return candidates each of which should hand a lease to the next; None: the shares are fair."""
        most = max(self._loads, default=0)
        for last in sorted(range(len(self._loads)), key=self._loads.__getitem__):
            if self._loads[last] + MIN_IMBALANCE > most:
                return None
            successors = self._successors(last, most)
            first = max(successors, key=self._loads.__getitem__)
            if self._loads[first] >= self._loads[last] + MIN_IMBALANCE:
                path = [first]
                while path[-1] != last:
                    path.append(successors[path[-1]])
                return path
        return None

    def transfer_along(self, path: list[int]) -> None:
        """Hand one lease from each candidate of a path to the next."""
        for giver, successor in pairwise(path):
            group = next(group for group, leases in self._held[giver].items() if leases and group >> successor & 1)
            # The last one: free leases were assigned last, and to assign them elsewhere costs nothing.
            lease = self._held[giver][group].pop()
            self._loads[giver] -= 1
            self._give(successor, lease, group)

    def assignment(self) -> dict[int, int]:
        """Return the node of each lease."""
        return {
            lease: node
            for node, groups in zip(self._ids, self._held, strict=True)
            for leases in groups.values()
            for lease in leases
        }

    def _give(self, number: int, lease: int, group: int) -> None:
        self._held[number].setdefault(group, []).append(lease)
        self._loads[number] += 1

    def _successors(self, last: int, most: int) -> dict[int, int]:
        """Return, for every candidate from which a path leads to `last`, the next one on the shortest such path.

        The search stops at a candidate that has the most: no other would be chosen.
        """
        successors = {last: last}
        reached = [last]
        for successor in reached:
            for number, groups in enumerate(self._held):
                if number not in successors and _has_for(successor, groups):
                    successors[number] = successor
                    if self._loads[number] == most:
                        return successors
                    reached.append(number)
        return successors


def _has_for(successor: int, groups: dict[int, list[int]]) -> bool:
    return any(leases and group >> successor & 1 for group, leases in groups.items())


def _groups(candidates: Sequence[Candidate]) -> dict[int, int]:
    """Return the group of each lease. Most candidates want the same leases, and each such set is read once."""
    masks: dict[frozenset[int], int] = {}
    for number, candidate in enumerate(candidates):
        masks[candidate.wanted] = masks.get(candidate.wanted, 0) | 1 << number
    groups: dict[int, int] = {}
    for wanted, mask in masks.items():
        for lease in wanted:
            groups[lease] = groups.get(lease, 0) | mask
    return groups
