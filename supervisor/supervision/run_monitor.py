"""Waits for a run: until it ends, has to stop or stalls, and, once it was asked to stop, until it has ended.

These functions return values and change no state: the instance carries out what follows.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from supervisor.errors import ProjectionHalted, ShardingConflict
from supervisor.supervision.restart_policy import RunOutcome
from supervisor.supervision.stop_policy import StopAction, StopProgress, WaitUntil, next_stop_action

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.supervision.ports import DatabaseStatus
    from supervisor.supervision.run import Run
    from supervisor.tasks import BackgroundTasks
    from supervisor.wakeup import Wakeup


class RunEvent(Enum):
    """Why the wait for a run is over."""

    ENDED = auto()
    HAS_TO_STOP = auto()
    STALLED = auto()


class StopLimits(NamedTuple):
    """What bounds a stop.

    Attributes:
        timeout_s: How long the run may take, from the request on, before it is cancelled.
        is_work: Whether the run is work in flight by nature, as a tick is.
        is_lease_lost: Whether its lease is lost by now.
        forced_since_s: Since when it is to end at once; None: it is not.
    """

    timeout_s: float
    is_work: bool
    is_lease_lost: Callable[[], bool]
    forced_since_s: Callable[[], float | None]


class StopResult(NamedTuple):
    """How a stop went.

    Attributes:
        has_ended: Whether the run has ended; it is to be abandoned if not.
        took_s: How long it was waited for.
        cancelled_after_s: After how long its work in flight was cancelled; None: it was not, or none was in flight.
    """

    has_ended: bool
    took_s: float
    cancelled_after_s: float | None


async def monitor_run(
    run: Run,
    *,
    wakeup: Wakeup,
    clock: Clock,
    may_continue: Callable[[], bool],
    stall_at_s: Callable[[], float | None],
) -> RunEvent:
    """Wait until the run has ended, may not continue, or has taken too long.

    Args:
        run: The run.
        wakeup: Woken at each change that concerns the run.
        clock: Time.
        may_continue: Whether the run may go on.
        stall_at_s: When the run has taken too long; None: it may take as long as it likes.
    """
    while not run.is_done:
        if not may_continue():
            return RunEvent.HAS_TO_STOP
        at_s = stall_at_s()
        if at_s is not None and clock.now_s() >= at_s:
            return RunEvent.STALLED
        await wakeup.wait(at_s)
    return RunEvent.ENDED


async def stop_run(run: Run, limits: StopLimits, *, wakeup: Wakeup, clock: Clock) -> StopResult:
    """Ask a run to stop and wait until it has ended or its deadlines are over; cancel it in between as needed."""
    run.request_stop()
    requested_s, cancelled_s, lease_lost_s = clock.now_s(), None, None
    cancelled_after_s = None
    while not run.is_done:
        is_cooperative = limits.is_work or run.stop.is_cooperative
        if lease_lost_s is None and limits.is_lease_lost():
            lease_lost_s = clock.now_s()
        in_flight, forced_since_s = run.stop.in_flight, limits.forced_since_s()
        progress = StopProgress(
            requested_s, limits.timeout_s, is_cooperative, in_flight, forced_since_s, cancelled_s, lease_lost_s
        )
        match next_stop_action(progress, now_s=clock.now_s()):
            case WaitUntil(at_s):
                await wakeup.wait(at_s)
            case StopAction.CANCEL:
                if cancelled_s is None and forced_since_s is None:
                    run.cancel_early()
                else:
                    run.cancel()
                cancelled_s = clock.now_s()
                if is_cooperative or in_flight:
                    cancelled_after_s = round(cancelled_s - requested_s, 3)
            case StopAction.ABANDON:
                break
    return StopResult(run.is_done, clock.now_s() - requested_s, cancelled_after_s)


async def outcome_of(
    error: BaseException | None,
    *,
    database: DatabaseStatus,
    tasks: BackgroundTasks,
    wakeup: Wakeup,
    may_wait: Callable[[], bool],
) -> RunOutcome:
    """Classify the end of a run.

    Args:
        error: What the run raised; None: it returned.
        database: Asked whether an outage caused the error, which takes a while.
        tasks: Where the question is asked.
        wakeup: Woken when `may_wait` may have changed.
        may_wait: Whether the answer still matters; if not, the database's present state is the answer.
    """
    if error is None:
        return RunOutcome.RETURNED
    if isinstance(error, ProjectionHalted):
        return RunOutcome.HALTED
    if isinstance(error, ShardingConflict):
        return RunOutcome.SHARDING_CONFLICT
    check = tasks.start(database.is_outage_error(error), name="was it an outage?")
    check.add_done_callback(lambda _: wakeup.wake())
    while not check.done():
        if not may_wait():
            check.cancel()
            return RunOutcome.FAILED if database.is_up else RunOutcome.OUTAGE
        await wakeup.wait()
    is_outage = not check.cancelled() and check.exception() is None and check.result()
    return RunOutcome.OUTAGE if is_outage else RunOutcome.FAILED
