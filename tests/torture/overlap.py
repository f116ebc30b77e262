"""Two holders at one instant outside of the database: when that is a violation, and when it is what was promised.

A holder's activity is the marks that it leaves, some fifty a second: a stopped or dead process leaves none, so that
it holds nothing in the sense of this rule, whatever its memory says. A mark is stale when a newer epoch of the lease
has left one before. A stale mark is a violation, unless

- the server itself had let go of that node's locks (its restart, `pg_terminate_backend`) after the old epoch had begun
  and before the newer one did, and no more than the trust in a lease and the grace of its worker has passed since; or
- its process was continued after a SIGSTOP no longer than `NOTICE_S` and the worker's grace ago: what was due while it
  was stopped is done in the loop's first turns, in the order in which it was due, before it can be told that time has
  passed; then the worker is cancelled, and may put things in order.

A partition, one way or both, a freeze and a kill -9 excuse nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torture.history import History, Mark

TRUST_S = 10.0
GRACE_S = 2.0
NOTICE_S = 0.5
# Who leaves no mark for so long is not active meanwhile.
_PAUSE_S = 0.5


class StaleMark(NamedTuple):
    """A mark under an epoch that was not the newest any more.

    Attributes:
        newer: Who held a newer epoch.
        late_s: How long after that one's first mark.
        is_excused: Whether it may happen.
    """

    mark: Mark
    newer: str
    late_s: float
    is_excused: bool


def stale_marks(history: History) -> Iterator[StaleMark]:
    """Find the stale marks, and judge each."""
    leases: dict[str, list[Mark]] = defaultdict(list)
    for mark in history.marks:
        leases[mark.lease].append(mark)
    for marks in leases.values():
        marks.sort(key=lambda mark: mark.at_s)
        # The first mark of each epoch, in the order of time.
        first: dict[int, Mark] = {}
        newest = 0
        for mark in marks:
            own = first.setdefault(mark.epoch, mark)
            newest = max(newest, mark.epoch)
            if mark.epoch < newest:
                successor = next(newer for epoch, newer in first.items() if epoch > mark.epoch)
                is_excused = _is_excused(history, mark, own.at_s, successor.at_s)
                newer = f"{successor.node} with epoch {successor.epoch}"
                yield StaleMark(mark, newer, mark.at_s - successor.at_s, is_excused)


def _is_excused(history: History, mark: Mark, begun_s: float, succeeded_s: float) -> bool:
    dropped = any(
        drop.node in {None, mark.node}
        and begun_s <= drop.ended_s
        and drop.begun_s <= succeeded_s
        and mark.at_s <= drop.ended_s + TRUST_S + GRACE_S
        for drop in history.drops
    )
    resumed = any(
        resumption.node == mark.node and resumption.at_s <= mark.at_s <= resumption.at_s + NOTICE_S + GRACE_S
        for resumption in history.resumptions
    )
    return dropped or resumed


def longest_overlap_s(history: History) -> float:
    """Return for how long two holders were active at once at most, excused or not; while one is stopped it is not."""
    longest_s = begun_s = 0.0
    before: Mark | None = None
    for mark in sorted(stale.mark for stale in stale_marks(history)):
        is_same = before is not None and (before.lease, before.epoch) == (mark.lease, mark.epoch)
        if before is None or not is_same or mark.at_s > before.at_s + _PAUSE_S:
            begun_s = mark.at_s
        longest_s = max(longest_s, mark.at_s - begun_s)
        before = mark
    return longest_s
