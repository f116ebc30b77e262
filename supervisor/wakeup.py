"""The one way in which a loop waits: until something wakes it, or until a deadline.

What is no wait of a loop is asyncio's: an `Event` for a state that lasts and has many waiters (the database is up), a
`Future` for one answer to one caller (a connection of the pool, the result of a reload or of a thread).
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

from supervisor.clock import done_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.tasks import BackgroundTasks

# Below this many cancelled entries, compacting the heap is not worth it.
_MIN_COMPACTION = 64


class Timer:
    """One deadline of a `TimerQueue`.

    Attributes:
        at_s: When `callback` is called, by the queue's clock.
        callback: None once it has been called or cancelled.
    """

    __slots__ = ("_number", "at_s", "callback")

    def __init__(self, at_s: float, number: int, callback: Callable[[], object]) -> None:
        self.at_s = at_s
        self.callback: Callable[[], object] | None = callback
        self._number = number

    def __lt__(self, other: Timer) -> bool:
        return (self.at_s, self._number) < (other.at_s, other._number)


class TimerQueue:
    """Deadlines of many waiters behind one sleeping task.

    Stopping ten thousand instances sets as many deadlines, nearly all of which are cancelled within
    milliseconds: an entry of a heap costs far less than a task with a timer. Time is the clock's, so
    that tests own it.
    """

    def __init__(self, *, clock: Clock, tasks: BackgroundTasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._timers: list[Timer] = []
        self._sleeper: asyncio.Task[None] | None = None
        self._sleeps_until_s = 0.0
        self._count = 0
        self._cancelled = 0

    def call_at(self, at_s: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` when the clock reads `at_s`, unless the timer is cancelled before."""
        self._count += 1
        timer = Timer(at_s, self._count, callback)
        heapq.heappush(self._timers, timer)
        if self._sleeper is None or self._sleeper.done() or at_s < self._sleeps_until_s:
            self._sleep_until(at_s)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call back; a timer that has been called or cancelled already is left alone."""
        if timer.callback is None:
            return
        timer.callback = None
        self._cancelled += 1
        if self._cancelled > _MIN_COMPACTION and self._cancelled > len(self._timers) // 2:
            # A tick each second with a stall timeout of an hour would leave 3,600 dead entries.
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def close(self) -> None:
        """Drop every timer; none is called any more."""
        self._timers.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()

    def _sleep_until(self, at_s: float) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._sleeps_until_s = at_s
        self._sleeper = self._tasks.start(self._run(), name="timers")

    async def _run(self) -> None:
        while (at_s := self._next_s()) is not None:
            self._sleeps_until_s = at_s
            if (delay_s := at_s - self._clock.now_s()) > 0:
                await self._clock.sleep(delay_s)
            while self._timers and self._timers[0].at_s <= self._clock.now_s():
                self._pop()

    def _next_s(self) -> float | None:
        """Return the earliest deadline that was not cancelled."""
        while self._timers and self._timers[0].callback is None:
            self._pop()
        return self._timers[0].at_s if self._timers else None

    def _pop(self) -> None:
        timer = heapq.heappop(self._timers)
        if timer.callback is None:
            self._cancelled -= 1
            return
        callback, timer.callback = timer.callback, None
        callback()


class Wakeup:
    """Wakes one waiting loop; a wake-up that comes before the wait is not lost.

    Args:
        clock: Time.
        timers: Where deadlines are kept when there are thousands of waiters; without it, each wait with a
            deadline sleeps on the clock itself.

    Attributes:
        deadline_s: Until when the loop waits; None: it waits for a wake-up alone, or it does not wait.
    """

    __slots__ = ("_clock", "_is_awake", "_timers", "_waiting", "deadline_s")

    def __init__(self, *, clock: Clock, timers: TimerQueue | None = None) -> None:
        self.deadline_s: float | None = None
        self._clock = clock
        self._timers = timers
        self._is_awake = False
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the current wait, or the next one."""
        self._is_awake = True
        if self._waiting is not None:
            _finish(self._waiting)

    async def wait(self, deadline_s: float | None = None) -> bool:
        """Return when woken (True) or at `deadline_s` (False); the caller checks its condition again.

        Args:
            deadline_s: By the clock; None: wait for a wake-up alone.
        """
        if not self._is_awake:
            self._waiting = waiting = asyncio.get_running_loop().create_future()
            self.deadline_s = deadline_s
            try:
                if deadline_s is None:  # here, and not in a coroutine more: thousands wait like this
                    await waiting
                else:
                    await self._wait_until(waiting, deadline_s)
            finally:
                self.deadline_s = self._waiting = None
        is_woken, self._is_awake = self._is_awake, False
        return is_woken

    async def _wait_until(self, waiting: asyncio.Future[None], deadline_s: float) -> None:
        if self._timers is None:
            if (delay_s := deadline_s - self._clock.now_s()) > 0:
                await done_within(waiting, delay_s, clock=self._clock)
        else:
            timer = self._timers.call_at(deadline_s, lambda: _finish(waiting))
            try:
                await waiting
            finally:
                self._timers.cancel(timer)


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
