"""The transitions between the states of a worker's instance, over every pair."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.errors import InvalidTransition
from supervisor.supervision.states import FINAL, UNHEALTHY, InstanceState, Transition, next_state

S = InstanceState
ALLOWED = {
    Transition.BEGIN: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.ABANDONED},
    Transition.SCHEDULE: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.ABANDONED, S.RUNNING, S.STOPPING},
    Transition.BACK_OFF: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
    Transition.PARK: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.RUNNING, S.ABANDONED},
    Transition.WAIT_FOR_LEASE: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.ABANDONED},
    Transition.REQUEST_STOP: {S.RUNNING},
    Transition.ABANDON: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY, S.STOPPING},
    Transition.BECOME_IDLE: set(S) - FINAL,
    Transition.PAUSE: {S.STOPPED, S.SCHEDULED, S.WAITING, S.PARKED, S.STANDBY},
    Transition.FINISH: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
    Transition.FAIL: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
    Transition.EXHAUST: {S.RUNNING, S.STOPPING, S.ABANDONED, S.STOPPED},
}
TARGET = {
    Transition.BEGIN: S.RUNNING,
    Transition.SCHEDULE: S.SCHEDULED,
    Transition.BACK_OFF: S.WAITING,
    Transition.PARK: S.PARKED,
    Transition.WAIT_FOR_LEASE: S.STANDBY,
    Transition.REQUEST_STOP: S.STOPPING,
    Transition.ABANDON: S.ABANDONED,
    Transition.BECOME_IDLE: S.STOPPED,
    Transition.PAUSE: S.PAUSED,
    Transition.FINISH: S.FINISHED,
    Transition.FAIL: S.FAILED,
    Transition.EXHAUST: S.EXHAUSTED,
}


@pytest.mark.parametrize(("state", "transition"), [*product(InstanceState, Transition)])
def test_every_pair(state: InstanceState, transition: Transition) -> None:
    """Each transition exists exactly where the diagram has it, and is our own fault elsewhere."""
    if state in ALLOWED[transition]:
        assert next_state(state, transition) is TARGET[transition]
    else:
        with pytest.raises(InvalidTransition, match=state.value):
            next_state(state, transition)


def test_nothing_leaves_a_final_state() -> None:
    """A finished, failed or exhausted instance transitions no more; another one takes its place."""
    assert not any(state in FINAL for states in ALLOWED.values() for state in states)


def test_an_unhealthy_state_needs_an_operator() -> None:
    """Of the final states only a good end is healthy; of the others only an abandoned run is unhealthy."""
    assert {S.FINISHED} == FINAL - UNHEALTHY
    assert {S.ABANDONED} == UNHEALTHY - FINAL
