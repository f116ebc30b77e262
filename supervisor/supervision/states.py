"""The states of a worker's instance, and the one function that moves between them."""

from __future__ import annotations

from enum import Enum

from supervisor.errors import InvalidTransition


class DesiredState(Enum):
    """What the configuration and the operator want of an instance."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class InstanceState(Enum):
    """What an instance does."""

    RUNNING = "running"
    SCHEDULED = "scheduled"
    WAITING = "waiting"
    PARKED = "parked"
    STANDBY = "standby"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    ABANDONED = "abandoned"


class Transition(Enum):
    """What can happen to an instance."""

    BEGIN = "a run begins"
    SCHEDULE = "the next tick is not due yet"
    BACK_OFF = "the next run has to wait out the backoff"
    PARK = "the next run has to wait for the database"
    WAIT_FOR_LEASE = "the lease is not held here"
    REQUEST_STOP = "the run is asked to stop"
    ABANDON = "the run does not end and is abandoned"
    BECOME_IDLE = "nothing runs any more"
    PAUSE = "nothing runs, by an operator's order"
    FINISH = "it ended well and is not run again"
    FAIL = "it ended with an error and is not run again"
    EXHAUST = "it used up its restarts"


_S = InstanceState
# Where nothing runs, and a run may begin when its time has come.
_READY = frozenset({_S.STOPPED, _S.SCHEDULED, _S.WAITING, _S.PARKED, _S.STANDBY})
# Where a run has just ended, by itself or because it was asked to stop.
_ENDED = frozenset({_S.RUNNING, _S.STOPPING, _S.ABANDONED, _S.STOPPED})

_TRANSITIONS: dict[Transition, tuple[frozenset[InstanceState], InstanceState]] = {
    # From ABANDONED: a service may run again beside its abandoned run; a tick never does.
    Transition.BEGIN: (_READY | {_S.ABANDONED}, _S.RUNNING),
    Transition.SCHEDULE: (_READY | _ENDED, _S.SCHEDULED),
    Transition.BACK_OFF: (_ENDED, _S.WAITING),
    Transition.PARK: (_READY | {_S.RUNNING, _S.ABANDONED}, _S.PARKED),
    # From ABANDONED: the abandoned run has ended by now.
    Transition.WAIT_FOR_LEASE: (_READY | {_S.ABANDONED}, _S.STANDBY),
    Transition.REQUEST_STOP: (frozenset({_S.RUNNING}), _S.STOPPING),
    # From the ready states: a successor takes over the tick that its predecessor abandoned.
    Transition.ABANDON: (_READY | {_S.STOPPING}, _S.ABANDONED),
    # From RUNNING: the run had ended by itself when the order to stop came.
    Transition.BECOME_IDLE: (_READY | _ENDED | {_S.PAUSED}, _S.STOPPED),
    Transition.PAUSE: (_READY, _S.PAUSED),
    Transition.FINISH: (_ENDED, _S.FINISHED),
    Transition.FAIL: (_ENDED, _S.FAILED),
    Transition.EXHAUST: (_ENDED, _S.EXHAUSTED),
}

# Only a new instance in its place ends these.
FINAL = frozenset({_S.FINISHED, _S.FAILED, _S.EXHAUSTED})
# An operator has to act.
UNHEALTHY = frozenset({_S.FAILED, _S.EXHAUSTED, _S.ABANDONED})


def next_state(state: InstanceState, transition: Transition) -> InstanceState:
    """Return the state after `transition`.

    Raises:
        InvalidTransition: The transition does not exist in this state: a fault of the daemon.
    """
    sources, target = _TRANSITIONS[transition]
    if state not in sources:
        raise InvalidTransition(f"a worker that is {state.value} cannot do this: {transition.value}")
    return target
