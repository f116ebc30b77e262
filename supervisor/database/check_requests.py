"""Requests for a check of the monitor's connection before its next heartbeat, and the answers to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from supervisor.clock import Clock


class CheckRequests:
    """Wakes the monitor, and answers each request with a check that began after it.

    Attributes:
        is_requested: Whether a check is asked for that has not begun yet.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.is_requested = False
        self._clock = clock
        self._wakeup = Wakeup(clock=clock)
        self._waiting: list[asyncio.Future[bool]] = []
        self._served: list[asyncio.Future[bool]] = []

    def request(self) -> None:
        """Ask for a check soon."""
        self.is_requested = True
        self._wakeup.wake()

    async def request_and_wait(self) -> bool:
        """Ask for a check, and return whether it finds the database up."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.request()
        return await waiter

    async def wait(self, timeout_s: float) -> None:
        """Return when a check is asked for, or after `timeout_s`."""
        deadline_s = self._clock.now_s() + timeout_s
        # The flag decides: a wake-up may stem from a request that the last check has answered.
        while not self.is_requested and self._clock.now_s() < deadline_s:
            await self._wakeup.wait(deadline_s)

    def start(self) -> None:
        """Begin the check: it answers the requests made so far."""
        self.is_requested = False
        self._served, self._waiting = [*self._served, *self._waiting], []

    def finish(self, *, is_up: bool) -> None:
        """Answer the requests that the check was for; a loss also answers those made meanwhile."""
        served, self._served = self._served, []
        if not is_up:
            # Nothing is sent for them any more.
            served, self._waiting = [*served, *self._waiting], []
        for waiter in served:
            if not waiter.done():
                waiter.set_result(is_up)
