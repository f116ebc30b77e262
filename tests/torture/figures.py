"""How well a run did while it was disturbed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from torture.overlap import longest_overlap_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torture.history import History


class Figures(NamedTuple):
    """Counts and times of a run.

    Attributes:
        events: Committed by the writers.
        commits: Transactions that workers committed under a lease.
        takes: How often a lease was given to a node.
        longest_gap_s: By lease, the longest time between two of its commits; the server's own absences are in it.
        longest_dark_s: The longest time in which nobody was active under the lease that needs no database.
        longest_overlap_s: For how long two were, outside of the database; what DESIGN allows is in it.
        convergence_s: From the last disturbance until everything was held and applied.
        ends: Nodes that ended by themselves, and were started again: with which exit status.
    """

    events: int
    commits: int
    takes: int
    longest_gap_s: dict[str, float]
    longest_dark_s: float
    longest_overlap_s: float
    convergence_s: float
    ends: dict[int, int]

    def as_text(self) -> Iterator[str]:
        """Return lines for people."""
        yield f"{self.events} events, {self.commits} commits under leases, {self.takes} take-overs"
        yield f"converged within {self.convergence_s:.1f} s"
        for lease, gap_s in sorted(self.longest_gap_s.items()):
            yield f"longest time without a commit of {lease}: {gap_s:.1f} s"
        yield f"longest time without an active holder of lamp: {self.longest_dark_s:.1f} s"
        yield f"longest time with two of them: {self.longest_overlap_s:.3f} s"
        for status, times in sorted(self.ends.items()):
            yield f"ended by themselves with {status}: {times}"


def figures_of(history: History, convergence_s: float, ends: Sequence[tuple[str, int]]) -> Figures:
    """Count and measure."""
    works = [turn for turn in history.turns if not turn.is_take]
    leases = {"beat", "stubborn", "tick"}
    gaps = {lease: _longest(turn.at_s for turn in works if turn.lease == lease) for lease in leases}
    return Figures(
        events=len(history.events),
        commits=len(works),
        takes=sum(turn.is_take and turn.node is not None for turn in history.turns),
        longest_gap_s=gaps,
        longest_dark_s=_longest(mark.at_s for mark in history.marks),
        longest_overlap_s=longest_overlap_s(history),
        convergence_s=convergence_s,
        ends=dict(Counter(status for _, status in ends)),
    )


def _longest(times_s: Iterable[float]) -> float:
    return max((after - before for before, after in pairwise(sorted(times_s))), default=0.0)
