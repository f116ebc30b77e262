"""One timer for all deadlines of all workers."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.tasks import BackgroundTasks


# Below this many entries, tidying is not worth it.
_FEW = 64


class Ring:
    """One deadline.

    Attributes:
        at_s: When it rings.
        call: Who is called; None: nobody waits for it any more.
    """

    __slots__ = ("_number", "at_s", "call")

    def __init__(self, at_s: float, number: int, call: Callable[[], None]) -> None:
        self.at_s = at_s
        self.call: Callable[[], None] | None = call
        self._number = number

    def __lt__(self, other: Ring) -> bool:
        return (self.at_s, self._number) < (other.at_s, other._number)


class Alarm:
    """Calls back at deadlines.

    Stopping ten thousand workers sets as many deadlines, nearly all of which are cancelled within
    milliseconds: an entry of a heap costs far less than a task with a timer. Time is the clock's, so
    that tests own it.
    """

    def __init__(self, *, clock: Clock, tasks: BackgroundTasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._rings: list[Ring] = []
        self._sleeper: asyncio.Task[None] | None = None
        self._sleeps_until_s = 0.0
        self._count = 0
        self._cancelled = 0

    def at(self, at_s: float, call: Callable[[], None]) -> Ring:
        """Call `call` when the clock says `at_s`, unless it is cancelled before."""
        self._count += 1
        ring = Ring(at_s, self._count, call)
        heapq.heappush(self._rings, ring)
        if self._sleeper is None or self._sleeper.done() or at_s < self._sleeps_until_s:
            self._sleep_until(at_s)
        return ring

    def cancel(self, ring: Ring) -> None:
        """Do not ring."""
        if ring.call is None:
            return
        ring.call = None
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled > len(self._rings) // 2:
            # A tick each second with a stall timeout of an hour would leave 3,600 dead entries.
            self._rings = [ring for ring in self._rings if ring.call is not None]
            heapq.heapify(self._rings)
            self._cancelled = 0

    def close(self) -> None:
        """Ring no more."""
        self._rings.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()

    def _sleep_until(self, at_s: float) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._sleeps_until_s = at_s
        self._sleeper = self._tasks.start(self._ring_on_time(), name="alarm")

    async def _ring_on_time(self) -> None:
        while (at_s := self._next_s()) is not None:
            self._sleeps_until_s = at_s
            if (delay_s := at_s - self._clock.now_s()) > 0:
                await self._clock.sleep(delay_s)
            while self._rings and self._rings[0].at_s <= self._clock.now_s():
                self._take_first()

    def _next_s(self) -> float | None:
        """Return the earliest deadline that somebody still waits for."""
        while self._rings and self._rings[0].call is None:
            self._take_first()
        return self._rings[0].at_s if self._rings else None

    def _take_first(self) -> None:
        ring = heapq.heappop(self._rings)
        if ring.call is None:
            self._cancelled -= 1
            return
        call, ring.call = ring.call, None
        call()
