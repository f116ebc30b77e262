"""A sleep that the worker's stop ends early."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.stop_signal import StopSignal

# Between two offers to leave, to a worker that swallowed the first: it must not turn hot.
_LEAST_PAUSE_S = 0.1


class _Nap:
    """A sleeping task that can be woken, the way `asyncio.timeout` does it: cancelled, then uncancelled.

    No task and no future but the timer's own: ten thousand workers sleep at the same time.
    """

    __slots__ = ("is_cut", "task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.is_cut = False

    def cut(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            self.task.cancel()


async def nap(delay_s: float, *, stop: StopSignal, clock: Clock) -> None:
    """Sleep until `delay_s` seconds have passed or the worker is to stop.

    A worker that is already to stop is cancelled here: it is between two pieces of its work.
    """
    stop.is_cooperative = True
    if stop.is_set:
        await _leave(delay_s, stop=stop, clock=clock)
    task = _current_task()
    cancelled_before = task.cancelling()
    sleeper = _Nap(task)
    cut = sleeper.cut
    stop.add_callback(cut)
    try:
        await clock.sleep(delay_s)
    except asyncio.CancelledError:
        # Somebody else may have cancelled the task at the same time; then that counts.
        if not sleeper.is_cut or task.uncancel() > cancelled_before:
            raise
    finally:
        stop.remove_callback(cut)


async def _leave(delay_s: float, *, stop: StopSignal, clock: Clock) -> None:
    task = _current_task()
    if task in stop.cancelled_tasks:
        await clock.sleep(max(delay_s, _LEAST_PAUSE_S))
    else:
        stop.cancelled_tasks = (*stop.cancelled_tasks, task)
    task.cancel()
    await clock.sleep(_LEAST_PAUSE_S)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("ctx.sleep() needs a running task")
    return task
