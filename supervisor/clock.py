"""The only place that reads the clock or sleeps, so that tests can own time."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Any, Protocol

_TIMER_STEP_S = 0.001


class Clock(Protocol):
    """Time as a role: monotonic seconds for decisions, wall time for people and cron."""

    def now_s(self) -> float:
        """Return monotonic seconds; only differences mean something."""

    def wall_time(self) -> datetime:
        """Return the wall time, aware of its zone (the machine's own)."""

    async def sleep(self, delay_s: float) -> None:
        """Return when `delay_s` seconds have passed, never earlier."""


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        # A large random offset: mixing this clock with another one fails at once instead of almost working.
        self._offset_s = random.SystemRandom().uniform(1e6, 1e7)

    def now_s(self) -> float:
        """Return monotonic seconds plus this clock's own offset."""
        return time.monotonic() + self._offset_s  # noqa: TID251 - the one place

    def wall_time(self) -> datetime:
        """Return the wall time in the machine's zone."""
        return datetime.now(UTC).astimezone()

    async def sleep(self, delay_s: float) -> None:
        """Return when `delay_s` seconds have passed.

        uvloop's timers have millisecond resolution and can fire early (uvloop #739), hence the loop; the rest
        of a millisecond is rounded up, or it would turn hot until the time is over.
        """
        deadline_s = self.now_s() + delay_s
        await asyncio.sleep(max(0.0, delay_s))  # noqa: TID251 - the one place
        while (rest_s := deadline_s - self.now_s()) > 0:  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(max(_TIMER_STEP_S, rest_s))  # noqa: TID251


async def done_within(future: asyncio.Future[Any], limit_s: float, *, clock: Clock) -> bool:
    """Wait for a task or future at most `limit_s` seconds and return whether it is done.

    The future is never cancelled by this, and its result or exception is left for the caller to take.
    """
    if future.done():
        return True
    timer = asyncio.ensure_future(clock.sleep(limit_s))  # noqa: TID251 - owned and ended right here
    try:
        await asyncio.wait((future, timer), return_when=asyncio.FIRST_COMPLETED)
        return future.done()
    finally:
        timer.cancel()
