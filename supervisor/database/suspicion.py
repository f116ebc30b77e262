"""What calls for a look at the gate's connection before its next heartbeat, and who waits to hear what is found."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.clock import done_within

if TYPE_CHECKING:
    from supervisor.clock import Clock


class Suspicion:
    """Wakes the gate, and answers those who ask with a check that begins after they have asked.

    Attributes:
        is_raised: Whether a check is called for that has not begun yet.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.is_raised = False
        self._clock = clock
        self._roused: asyncio.Future[None] | None = None
        self._waiting: list[asyncio.Future[bool]] = []
        self._served: list[asyncio.Future[bool]] = []

    def rouse(self) -> None:
        """Call for a check soon."""
        self.is_raised = True
        if self._roused is not None and not self._roused.done():
            self._roused.set_result(None)

    async def ask(self) -> bool:
        """Call for a check, and return whether it finds the database up."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.rouse()
        return await waiter

    async def wait(self, limit_s: float) -> None:
        """Return when a check is called for, or after `limit_s`."""
        if not self.is_raised:
            self._roused = asyncio.get_running_loop().create_future()
            await done_within(self._roused, limit_s, clock=self._clock)

    def begin(self) -> None:
        """Begin the check: it is for those who have asked so far."""
        self.is_raised = False
        self._served, self._waiting = [*self._served, *self._waiting], []

    def dispel(self) -> None:
        """Tell those the check was for that the database is up."""
        served, self._served = self._served, []
        _answer(served, is_up=True)

    def confirm(self) -> None:
        """Tell everybody that it is not, also those who asked meanwhile: nothing is sent for them any more."""
        everybody, self._served, self._waiting = [*self._served, *self._waiting], [], []
        _answer(everybody, is_up=False)


def _answer(waiters: list[asyncio.Future[bool]], *, is_up: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(is_up)
