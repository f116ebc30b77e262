"""The moves between the states of a worker's instance, over every pair."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.errors import InvalidTransition
from supervisor.supervision.state import FINAL, ILL, Move, State, moved

S = State
ALLOWED = {
    Move.BEGIN: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.ABANDONED},
    Move.SCHEDULE: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.ABANDONED, S.RUNNING, S.STOPPING},
    Move.BACK_OFF: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
    Move.PARK: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.RUNNING, S.ABANDONED},
    Move.STAND_BY: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.ABANDONED},
    Move.TELL_STOP: {S.RUNNING},
    Move.ABANDON: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.STOPPING},
    Move.REST: set(S) - FINAL,
    Move.PAUSE: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY},
    Move.FINISH: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
    Move.FAIL: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
    Move.EXHAUST: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
}
TARGET = {
    Move.BEGIN: S.RUNNING,
    Move.SCHEDULE: S.SCHEDULED,
    Move.BACK_OFF: S.WAITING,
    Move.PARK: S.PARKED,
    Move.STAND_BY: S.STANDBY,
    Move.TELL_STOP: S.STOPPING,
    Move.ABANDON: S.ABANDONED,
    Move.REST: S.STOPPED,
    Move.PAUSE: S.PAUSED,
    Move.FINISH: S.FINISHED,
    Move.FAIL: S.FAILED,
    Move.EXHAUST: S.EXHAUSTED,
}


@pytest.mark.parametrize(("state", "move"), [*product(State, Move)])
def test_every_pair(state: State, move: Move) -> None:
    """Each move exists exactly where the diagram has it, and is our own fault elsewhere."""
    if state in ALLOWED[move]:
        assert moved(state, move) is TARGET[move]
    else:
        with pytest.raises(InvalidTransition, match=state.value):
            moved(state, move)


def test_nothing_leaves_a_final_state() -> None:
    """A finished, failed or exhausted instance moves no more; another one takes its place."""
    assert not any(state in FINAL for states in ALLOWED.values() for state in states)


def test_what_is_ill_needs_a_person() -> None:
    """Of the final states a good end is no illness, and of the others only a run that was left behind is one."""
    assert {S.FINISHED} == FINAL - ILL
    assert {S.ABANDONED} == ILL - FINAL
