"""The states of a worker's instance, and the one function that moves between them."""

from __future__ import annotations

from enum import Enum

from supervisor.errors import InvalidTransition


class Wanted(Enum):
    """What the configuration and the operator want of an instance."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class State(Enum):
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


class Move(Enum):
    """What can happen to an instance."""

    BEGIN = "a run begins"
    SCHEDULE = "the next tick is not due yet"
    BACK_OFF = "the next run has to wait out the backoff"
    PARK = "the next run has to wait for the database"
    STAND_BY = "the lease is not held here"
    TELL_STOP = "the run is told to end"
    ABANDON = "the run does not end and is left behind"
    REST = "nothing runs any more"
    PAUSE = "nothing runs, by an operator's wish"
    FINISH = "it ended well and is not run again"
    FAIL = "it ended with an error and is not run again"
    EXHAUST = "it used up its restarts"


_S = State
# Where nothing runs, and a run may begin when its time has come.
_READY = frozenset({_S.STOPPED, _S.SCHEDULED, _S.WAITING, _S.PARKED, _S.STANDBY})
# Where a run has just ended, by itself or because it was told to.
_ENDED = frozenset({_S.RUNNING, _S.STOPPING, _S.ABANDONED, _S.STOPPED})

_SOURCES: dict[Move, tuple[frozenset[State], State]] = {
    # From ABANDONED: a service may run again beside the run it left behind; a tick never does.
    Move.BEGIN: (_READY | {_S.ABANDONED}, _S.RUNNING),
    Move.SCHEDULE: (_READY | _ENDED, _S.SCHEDULED),
    Move.BACK_OFF: (_ENDED, _S.WAITING),
    Move.PARK: (_READY | {_S.RUNNING, _S.ABANDONED}, _S.PARKED),
    # From ABANDONED: the run that was left behind has ended by now.
    Move.STAND_BY: (_READY | {_S.ABANDONED}, _S.STANDBY),
    Move.TELL_STOP: (frozenset({_S.RUNNING}), _S.STOPPING),
    # From STOPPED and its kin: a successor finds the tick that its predecessor left behind.
    Move.ABANDON: (_READY | {_S.STOPPING}, _S.ABANDONED),
    # From RUNNING: it had ended by itself when the order to stop came.
    Move.REST: (_READY | _ENDED | {_S.PAUSED}, _S.STOPPED),
    Move.PAUSE: (_READY, _S.PAUSED),
    Move.FINISH: (_ENDED, _S.FINISHED),
    Move.FAIL: (_ENDED, _S.FAILED),
    Move.EXHAUST: (_ENDED, _S.EXHAUSTED),
}

# Nothing moves these on but a new instance in their place.
FINAL = frozenset({_S.FINISHED, _S.FAILED, _S.EXHAUSTED})
# Where somebody has to look at it.
ILL = frozenset({_S.FAILED, _S.EXHAUSTED, _S.ABANDONED})


def moved(state: State, move: Move) -> State:
    """Return the state after `move`.

    Raises:
        InvalidTransition: The move does not exist in this state: a fault of the daemon.
    """
    sources, target = _SOURCES[move]
    if state not in sources:
        raise InvalidTransition(f"a worker that is {state.value} cannot move: {move.value}")
    return target
