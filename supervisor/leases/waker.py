"""A loop's alarm clock: it rings at a time, or when somebody calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.clock import done_within

if TYPE_CHECKING:
    from supervisor.clock import Clock


class Waker:
    """Wakes one loop; a call that comes while the loop is busy counts for its next wait."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._is_called = False
        self._called: asyncio.Future[None] | None = None

    def call(self) -> None:
        """Wake the loop."""
        self._is_called = True
        if self._called is not None and not self._called.done():
            self._called.set_result(None)

    async def wait(self, limit_s: float | None) -> None:
        """Return when called, or after `limit_s` seconds; None: only when called."""
        if not self._is_called and (limit_s is None or limit_s > 0):
            self._called = asyncio.get_running_loop().create_future()
            if limit_s is None:
                await self._called
            else:
                await done_within(self._called, limit_s, clock=self._clock)
        self._called = None
        self._is_called = False
