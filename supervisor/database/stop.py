"""What a worker and its database calls know of the worker's stop."""

from __future__ import annotations

import asyncio


class StopSignal:
    """Says once that a worker is to stop, and counts the database work it has in flight.

    Attributes:
        is_set: Whether the worker is to stop; true from then on.
        in_flight: Database calls, connections and transactions the worker is inside of.
        is_watched: Whether the worker has shown that it notices a stop by itself (it looked at
            `ctx.stopping` or slept with `ctx.sleep`), so that it is worth waiting for.
    """

    __slots__ = ("_changed", "in_flight", "is_set", "is_watched")

    def __init__(self) -> None:
        self.is_set = False
        self.is_watched = False
        self.in_flight = 0
        # Ten thousand workers have one of these each; the event is made when somebody waits.
        self._changed: asyncio.Event | None = None

    def set(self) -> None:
        """Tell the worker to stop."""
        self.is_set = True
        self._wake()

    def entered(self) -> None:
        """Count a database call that begins."""
        self.in_flight += 1

    def left(self) -> None:
        """Count a database call that ended."""
        self.in_flight -= 1
        if self.in_flight == 0 and self.is_set:
            self._wake()

    async def wait(self) -> None:
        """Return once the worker is to stop."""
        while not self.is_set:
            await self._next_change()

    async def wait_idle(self) -> None:
        """Return once no database work is in flight."""
        while self.in_flight:
            await self._next_change()

    async def _next_change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
