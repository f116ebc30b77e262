"""How a runner waits: for a moment, or for anything that concerns it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.supervision.alarm import Alarm


class Attention:
    """One waiter that anybody may wake; a wake-up that comes before the wait is not lost.

    Attributes:
        until_s: Until when it waits; None: for a wake-up alone, or it does not wait.
    """

    __slots__ = ("_alarm", "_is_awake", "_waiting", "until_s")

    def __init__(self, alarm: Alarm) -> None:
        self.until_s: float | None = None
        self._alarm = alarm
        self._is_awake = False
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the wait that is, or the next one."""
        self._is_awake = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, until_s: float | None = None) -> None:
        """Return when woken or at `until_s`; who waits looks again at what it waits for."""
        if not self._is_awake:
            self._waiting = asyncio.get_running_loop().create_future()
            ring = None if until_s is None else self._alarm.at(until_s, self.wake)
            self.until_s = until_s
            try:
                await self._waiting
            finally:
                self.until_s = self._waiting = None
                if ring is not None:
                    self._alarm.cancel(ring)
        self._is_awake = False
