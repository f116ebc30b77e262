"""A clock that only moves when the test says so, and dice that always fall the same way."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from random import Random


class FakeClock:
    """Virtual time: code sleeps on it, the test jumps it.

    `next_sleep()` waits until somebody sleeps and returns for how long; `jump()` moves time and
    wakes whoever is due, in order.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now_s = 5000.0
        self._start = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._asked: asyncio.Queue[float] = asyncio.Queue()
        self._count = 0

    def now_s(self) -> float:
        return self._now_s

    def wall_time(self) -> datetime:
        return self._start + timedelta(seconds=self._now_s - 5000.0)

    async def sleep(self, delay_s: float) -> None:
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + delay_s, self._count, future))
        self._asked.put_nowait(delay_s)
        await future

    async def next_sleep(self) -> float:
        """Return the duration of the next sleep that anybody begins (each sleep is told once)."""
        async with asyncio.timeout(30):
            return await self._asked.get()

    async def jump(self, delta_s: float) -> None:
        """Move time by `delta_s`, waking every sleeper at its own moment, and let the loop settle."""
        target_s = self._now_s + delta_s
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target_s:
            self._now_s, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now_s = target_s
        await settle()

    @property
    def sleepers(self) -> list[float]:
        """Seconds from now until each sleeper that still waits is due, soonest first."""
        return sorted(due_s - self._now_s for due_s, _, future in self._sleepers if not future.done())


async def settle(turns: int = 20) -> None:
    """Let everything run that can run without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


class MaxJitterRandom(Random):
    """Dice that always show the highest face: full jitter gives the whole bound."""

    def random(self) -> float:
        return 1.0

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return b
