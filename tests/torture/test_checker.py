"""The checker finds each kind of violation in small histories that were made up, and none in a right one."""

from __future__ import annotations

from typing import Any

import pytest
from torture.checker import check
from torture.history import Applied, Attempt, Drop, Event, History, Mark, Outcome, Reading, Resumption, Turn
from torture.overlap import longest_overlap_s

A, B = "a@host:1", "b@host:2"


def take(number: int, epoch: int, node: str | None = A, *, lease: str = "orders") -> Turn:
    return Turn(lease, number, True, epoch, None if node is None else f"i{epoch}", node, float(number))


def work(number: int, epoch: int, node: str = A, *, lease: str = "orders", incarnation: str | None = None) -> Turn:
    return Turn(lease, number, False, epoch, incarnation or f"i{epoch}", node, float(number))


def applied(position: int, nth: int, turn: int = 2, *, stream: str = "s", projection: str = "orders") -> Applied:
    return Applied("orders", turn, projection, stream, nth, position, f"u{position}")


def event(position: int, *, stream: str = "s", type_: str = "placed", uid: str | None = None) -> Event:
    return Event(position, stream, type_, uid or f"u{position}")


def mark(at_s: float, epoch: int, node: str) -> Mark:
    return Mark("lamp", epoch, node, at_s)


RIGHT = History(
    projections={"orders": Reading(("s*",), buries_poison=True)},
    attempts=[
        Attempt(("u1", "u2"), Outcome.COMMITTED),
        Attempt(("r1",), Outcome.ROLLED_BACK),
        Attempt(("u3",), Outcome.UNKNOWN),
        Attempt(("x1", "x2"), Outcome.UNKNOWN),
        Attempt(("u4", "u5"), Outcome.COMMITTED),
    ],
    events=[event(1), event(2), event(3), event(4, type_="poison"), event(5, stream="other")],
    turns=[
        take(1, 1), work(2, 1), take(3, 2, B), work(4, 2, B), take(5, 3, None),
        take(1, 1, lease="lamp"), take(2, 2, B, lease="lamp"),
    ],
    applied=[applied(1, 1), applied(2, 2), applied(3, 3, turn=4)],
    buried=[("orders", 4)],
    marks=[mark(0.0, 1, A), mark(5.0, 1, A), mark(5.1, 2, B), mark(9.0, 2, B)],
)  # fmt: skip


def changed(**fields: Any) -> list[tuple[str, str]]:
    """What the checker finds in the right history with other rows in these places."""
    return [(violation.rule, violation.what) for violation in check(RIGHT._replace(**fields))]


def test_a_right_history_passes() -> None:
    """Commits, rollbacks, both outcomes of a lost COMMIT, hand-overs, dead letters: nothing is found."""
    assert check(RIGHT) == []
    assert longest_overlap_s(RIGHT) == 0.0


EVENTS, APPLIED, TURNS = list(RIGHT.events), list(RIGHT.applied), list(RIGHT.turns)
ATTEMPTS = list(RIGHT.attempts)
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a committed event is gone from the log": ({"events": EVENTS[:4]}, "log", "committed and gone: ['u5']"),
    "a rolled back event is in the log": (
        {"events": [*EVENTS, event(9, stream="o", uid="r1")]}, "log", "rolled back and there: ['r1']",
    ),
    "a commit is there by half": (
        {"events": [*EVENTS, event(9, stream="o", uid="x1")]}, "log", "committed by half: ['x1'] of ['x1', 'x2']",
    ),
    "an event is in the log twice": (
        {"events": [*EVENTS, event(9, stream="o", uid="u1")]}, "log", "u1 is there 2 times",
    ),
    "an event came from nowhere": (
        {"events": [*EVENTS, event(9, stream="o")]}, "log", "u9 was written by nobody",
    ),
    "an event was never applied": ({"applied": APPLIED[:2]}, "once", "orders: applied never: (3, 'u3')"),
    "an event was applied twice": (
        {"applied": [*APPLIED, applied(3, 4, turn=4)]}, "once", "orders: applied 2 times: (3, 'u3')",
    ),
    "a rolled back event was applied": (
        {"applied": [*APPLIED, applied(7, 4, turn=4)]},
        "once", "orders: applied what was not to be: (7, 'u7'), which is no event",
    ),
    "another event was applied in its place": (
        {"applied": [*APPLIED[:2], APPLIED[2]._replace(uid="u9")]}, "once", "orders: applied never: (3, 'u3')",
    ),
    "a stream was applied that is not the projection's": (
        {"applied": [*APPLIED, applied(5, 1, turn=4, stream="other")]},
        "once", f"orders: applied what was not to be: (5, 'u5'), which is {event(5, stream='other')}",
    ),
    "poison was neither applied nor buried": ({"buried": []}, "once", "orders: buried never: 4"),
    "a good event was buried": (
        {"applied": APPLIED[:2], "buried": [("orders", 4), ("orders", 3)]}, "once", "orders: applied never: (3, 'u3')",
    ),
    "a projection that nobody knows": (
        {"applied": [*APPLIED, applied(1, 1, projection="ghost")]}, "once", "ghost is no projection of this run",
    ),
    "a stream was applied out of order": (
        {"applied": [applied(2, 1), applied(1, 2), APPLIED[2]]}, "order", "orders, s: 1 after 2",
    ),
    "a row of the history is lost": (
        {"applied": [applied(1, 1), applied(2, 2), applied(3, 4, turn=4)]},
        "order", "orders, s: the places are not 1 to 3: the history has lost something",
    ),
    "a turn of the history is lost": (
        {"turns": [turn for turn in TURNS if (turn.lease, turn.number) != ("orders", 3)]},
        "epoch", "orders: the turns are not 1 to 4: the history has lost something",
    ),
    "a stale holder committed": (
        {"turns": [*TURNS, work(6, 2, B)]},
        "epoch", "orders, turn 6: b@host:2 committed under epoch 2 (i2), but since turn 5 it is 3 (None) of None",
    ),
    "a stale holder committed before its successor did anything": (
        {"turns": [take(1, 1), work(2, 1), take(3, 2, B), work(4, 1), *TURNS[5:]]},
        "epoch", "orders, turn 4: a@host:1 committed under epoch 1 (i1), but since turn 3 it is 2 (i2) of b@host:2",
    ),
    "an epoch was given twice, to one who is another incarnation": (
        {"turns": [take(1, 1), work(2, 1, incarnation="i0"), *TURNS[2:]]},
        "epoch", "orders, turn 2: a@host:1 committed under epoch 1 (i0), but since turn 1 it is 1 (i1) of a@host:1",
    ),
    "work under an epoch that nobody gave": (
        {"turns": [*TURNS, work(1, 1, lease="ghost")]},
        "epoch", "ghost, turn 1: a@host:1 worked under epoch 1, which nobody gave",
    ),
    "an epoch went back": (
        {"turns": [*TURNS, take(6, 2)]}, "epoch", "orders, turn 6: epoch 2 was given after 3",
    ),
    "an effect outside of every turn": (
        {"applied": [*APPLIED[:2], applied(3, 3, turn=9)]}, "epoch", "orders: 3 was applied outside of its turns",
    ),
    "two nodes in one epoch": (
        {"turns": [take(1, 1), work(2, 1, B), *TURNS[2:]]},
        "holder", "orders: epoch 1 was held by ['a@host:1', 'b@host:2']",
    ),
    "two nodes in one epoch, outside of the database": (
        {"marks": [mark(0.0, 1, A), mark(1.0, 1, B)]},
        "holder", "lamp: epoch 1 was held by ['a@host:1', 'b@host:2']",
    ),
    "a node that ran without having been given the lease": (
        {"marks": [mark(0.0, 7, A)]}, "holder", "lamp: a@host:1 ran under epoch 7, which it was never given",
    ),
    "a holder that ran on beside its successor": (
        {"marks": [mark(0.0, 1, A), mark(5.0, 2, B), mark(5.2, 1, A)]},
        "overlap", "lamp: a@host:1 ran on under epoch 1, 0.200 s after b@host:2 with epoch 2 had begun, at 5.200",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_finds(name: str) -> None:
    """Each kind of violation is found, by its rule, and is said so that one knows where to look."""
    fields, rule, what = WRONG[name]
    assert (rule, what) in changed(**fields)


OVERLAPPING = [mark(0.0, 1, A), mark(5.0, 2, B), mark(6.0, 1, A)]


@pytest.mark.parametrize(
    ("excuse", "is_excused"),
    [
        ({"drops": [Drop(None, 4.0, 4.5)]}, True),
        ({"drops": [Drop(A, 4.0, 4.5)]}, True),
        ({"drops": [Drop(B, 4.0, 4.5)]}, False),
        ({"drops": [Drop(None, 5.5, 5.6)]}, False),
        ({"drops": [Drop(None, -9.0, -8.0)]}, False),
        ({"resumptions": [Resumption(A, 5.5)]}, True),
        ({"resumptions": [Resumption(A, 3.4)]}, False),
        ({"resumptions": [Resumption(A, 6.1)]}, False),
        ({"resumptions": [Resumption(B, 5.5)]}, False),
    ],
    ids=[
        "the server had dropped all locks", "the server had dropped its locks", "the server had dropped another's",
        "the server dropped them later", "the server had dropped them before that holder's time",
        "it was just continued", "it was continued a while ago", "it was continued later", "another was continued",
    ],
)  # fmt: skip
def test_an_overlap_outside_of_the_database_needs_its_excuse(excuse: dict[str, Any], is_excused: bool) -> None:
    """Only what the server dropped early, or a process that was just continued, may run beside its successor."""
    found = changed(marks=OVERLAPPING, **excuse)
    assert [rule for rule, _ in found] == ([] if is_excused else ["overlap"])


def test_an_early_drop_excuses_no_longer_than_the_trust_lasts() -> None:
    """Ten seconds of trust and two of grace after the server let go, the old holder must have ended."""
    marks = [mark(0.0, 1, A), mark(5.0, 2, B), mark(16.4, 1, A)]
    drops = [Drop(None, 4.0, 4.5)]
    assert changed(marks=marks, drops=drops) == []
    assert [rule for rule, _ in changed(marks=[*marks, mark(16.6, 1, A)], drops=drops)] == ["overlap"]


def test_an_overlap_lasts_while_both_are_active() -> None:
    """It is as long as the former holder's marks follow each other; from a pause on it is another one."""
    marks = [mark(0.0, 1, A), mark(5.0, 2, B), *(mark(5.0 + number / 10, 1, A) for number in (1, 2, 3, 40, 41))]
    assert longest_overlap_s(RIGHT._replace(marks=marks)) == pytest.approx(0.2)
