"""Judges a history: returns every violation that it proves, by rule.

What each rule proves, and from what:

- `log`: the event log holds exactly what the writers committed. From what each writer knows of its own transactions;
  one whose COMMIT went unanswered is there with all its events or with none.
- `once`: each projection has applied, or buried, each event of its streams exactly once, and nothing else. From the
  rows that its handlers wrote; no constraint keeps a second row for an event out.
- `order`: and each stream in the order of its positions. Each row has its place in the order of the commits, counted
  under a row lock.
- `epoch`: whatever was committed under a lease carries the epoch, the incarnation and the node of the newest take-over
  committed before. Take-overs and works of a lease are numbered by one counter under one row lock, so that "before"
  is a fact and not a comparison of clocks.
- `holder`: an epoch has one holder, inside of the database and outside.
- `overlap`: see `torture.overlap`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from torture.history import POISON, Applied, Event, History, Outcome, Turn
from torture.overlap import stale_marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Violation(NamedTuple):
    """Something that must never happen."""

    rule: str
    what: str


def check(history: History) -> list[Violation]:
    """Return the violations; none: the run was right."""
    rules = {
        "log": _log(history),
        "once": _once(history),
        "order": _order(history.applied),
        "epoch": _epochs(history),
        "holder": _holders(history),
        "overlap": _overlaps(history),
    }
    return [Violation(rule, what) for rule, found in rules.items() for what in found]


def _log(history: History) -> Iterator[str]:
    times = Counter(event.uid for event in history.events)
    known: set[str] = set()
    for uids, outcome in history.attempts:
        known.update(uids)
        there = [uid for uid in uids if times[uid]]
        match outcome:
            case Outcome.COMMITTED if len(there) < len(uids):
                yield f"committed and gone: {sorted(set(uids) - set(there))}"
            case Outcome.ROLLED_BACK if there:
                yield f"rolled back and there: {there}"
            case Outcome.UNKNOWN if 0 < len(there) < len(uids):
                yield f"committed by half: {there} of {list(uids)}"
            case _:
                pass
    for uid, count in times.items():
        if count > 1:
            yield f"{uid} is there {count} times"
        if uid not in known:
            yield f"{uid} was written by nobody"


def _once(history: History) -> Iterator[str]:
    events = {event.position: event for event in history.events}
    applied: dict[str, Counter[tuple[int, str]]] = defaultdict(Counter)
    buried: dict[str, Counter[int]] = defaultdict(Counter)
    for row in history.applied:
        applied[row.projection][row.position, row.uid] += 1
    for projection, position in history.buried:
        buried[projection][position] += 1
    for projection, reading in history.projections.items():
        wanted = [event for event in events.values() if reading.wants(event)]
        poison = {event.position for event in wanted if reading.buries_poison and event.type == POISON}
        good = {(event.position, event.uid) for event in wanted if event.position not in poison}
        yield from _differences(f"{projection}: applied", applied.pop(projection, Counter()), good, events)
        yield from _differences(f"{projection}: buried", buried.pop(projection, Counter()), poison, events)
    for projection in [*applied, *buried]:
        yield f"{projection} is no projection of this run"


def _differences(who: str, counted: Counter, wanted: set, events: dict[int, Event]) -> Iterator[str]:  # type: ignore[type-arg]
    for what in sorted(wanted - counted.keys()):
        yield f"{who} never: {what}"
    for what, times in counted.items():
        if what not in wanted:
            position = what if isinstance(what, int) else what[0]
            yield f"{who} what was not to be: {what}, which is {events.get(position, 'no event')}"
        elif times > 1:
            yield f"{who} {times} times: {what}"


def _order(applied: Iterable[Applied]) -> Iterator[str]:
    streams: dict[tuple[str, str], list[Applied]] = defaultdict(list)
    for row in applied:
        streams[row.projection, row.stream].append(row)
    for (projection, stream), rows in streams.items():
        rows.sort(key=lambda row: row.nth)
        if [row.nth for row in rows] != list(range(1, len(rows) + 1)):
            yield f"{projection}, {stream}: the places are not 1 to {len(rows)}: the history has lost something"
        for before, after in pairwise(rows):
            if after.position < before.position:
                yield f"{projection}, {stream}: {after.position} after {before.position}"


def _by_lease(turns: Iterable[Turn]) -> dict[str, list[Turn]]:
    leases: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        leases[turn.lease].append(turn)
    for of_lease in leases.values():
        of_lease.sort(key=lambda turn: turn.number)
    return leases


def _epochs(history: History) -> Iterator[str]:
    worked: set[tuple[str, int]] = set()
    for lease, turns in _by_lease(history.turns).items():
        if [turn.number for turn in turns] != list(range(1, len(turns) + 1)):
            yield f"{lease}: the turns are not 1 to {len(turns)}: the history has lost something"
        yield from _epochs_of(lease, turns)
        worked.update((lease, turn.number) for turn in turns if not turn.is_take)
    for row in history.applied:
        if (row.lease, row.turn) not in worked:
            yield f"{row.lease}: {row.position} was applied outside of its turns"


def _epochs_of(lease: str, turns: Sequence[Turn]) -> Iterator[str]:
    newest: Turn | None = None
    for turn in turns:
        if turn.is_take:
            if newest is not None and turn.epoch <= newest.epoch:
                yield f"{lease}, turn {turn.number}: epoch {turn.epoch} was given after {newest.epoch}"
            newest = turn
        elif newest is None:
            yield f"{lease}, turn {turn.number}: {turn.node} worked under epoch {turn.epoch}, which nobody gave"
        elif (turn.epoch, turn.incarnation, turn.node) != (newest.epoch, newest.incarnation, newest.node):
            yield (
                f"{lease}, turn {turn.number}: {turn.node} committed under epoch {turn.epoch} ({turn.incarnation}), "
                f"but since turn {newest.number} it is {newest.epoch} ({newest.incarnation}) of {newest.node}"
            )


def _holders(history: History) -> Iterator[str]:
    holders: dict[tuple[str, int], set[str]] = defaultdict(set)
    given = set()
    for turn in history.turns:
        if turn.node is not None:
            holders[turn.lease, turn.epoch].add(turn.node)
        if turn.is_take:
            given.add((turn.lease, turn.epoch, turn.node))
    for mark in history.marks:
        holders[mark.lease, mark.epoch].add(mark.node)
    for (lease, epoch), nodes in holders.items():
        if len(nodes) > 1:
            yield f"{lease}: epoch {epoch} was held by {sorted(nodes)}"
    for lease, epoch, node in sorted({(mark.lease, mark.epoch, mark.node) for mark in history.marks} - given):
        yield f"{lease}: {node} ran under epoch {epoch}, which it was never given"


def _overlaps(history: History) -> Iterator[str]:
    for stale in stale_marks(history):
        if not stale.is_excused:
            yield (
                f"{stale.mark.lease}: {stale.mark.node} ran on under epoch {stale.mark.epoch}, "
                f"{stale.late_s:.3f} s after {stale.newer} had begun, at {stale.mark.at_s:.3f}"
            )
