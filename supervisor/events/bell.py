"""Wakes the projections of a daemon when there may be new events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from supervisor.clock import done_within

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.stop_signal import StopSignal


class Look(Protocol):
    """What of a node's look matters here."""

    @property
    def head(self) -> int:
        """The last position that has been drawn."""


class Bell:
    """Rung by each notification, and by a look of the node that finds the log longer than the look before.

    A notification may be missed, or never sent (`set supervisor.notify = off`); a look comes anyway.

    Attributes:
        rings: How often it has rung.
        head: The last position that had been drawn at the node's last look.
    """

    __slots__ = ("_waiting", "head", "rings")

    def __init__(self) -> None:
        self.rings = 0
        self.head = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self, payload: str = "") -> None:  # noqa: ARG002 - what a LISTEN hands over; there is nothing in it
        """Wake everybody: somebody has appended, or a notification may have been missed."""
        self.rings += 1
        self._wake()

    def look(self, look: Look) -> None:
        """Note how long the log is, and wake everybody if it has grown."""
        has_grown, self.head = look.head > self.head, look.head
        if has_grown:
            self._wake()

    async def wait(
        self, rings: int, head: int, *, stop: StopSignal, clock: Clock, limit_s: float | None = None
    ) -> bool:
        """Wait until it has rung, the log has grown, the worker is to stop, or the time is over (then false).

        Args:
            rings: What `rings` was when the log was last read.
            head: How long the log was then.
            stop: The worker's stop.
            clock: Time.
            limit_s: How long to wait at most; None: as long as it takes.
        """
        while self.rings == rings and self.head <= head and not stop.is_set:
            if not await self._wait_once(stop, clock, limit_s):
                return False
        return True

    async def _wait_once(self, stop: StopSignal, clock: Clock, limit_s: float | None) -> bool:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        self._waiting.add(woken)
        stop.add_callback(wake)
        try:
            if limit_s is not None:
                return await done_within(woken, limit_s, clock=clock)
            await woken
            return True
        finally:
            self._waiting.discard(woken)
            stop.remove_callback(wake)

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
