"""Wakes a daemon's projections when there may be new events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.stop_signal import StopSignal


class HasHead(Protocol):
    """The part of a node's snapshot that matters here."""

    @property
    def head(self) -> int:
        """The last position that was drawn from the sequence."""


class AppendSignal:
    """Wakes its waiters at each notification of an append, and when the node finds that the log has grown.

    A notification can be missed, or be switched off (`set supervisor.notify = off`); the node's next snapshot comes
    anyway.

    Attributes:
        count: How many notifications there were.
        head: The last position that had been drawn at the node's last snapshot.
    """

    __slots__ = ("_waiting", "count", "head")

    def __init__(self) -> None:
        self.count = 0
        self.head = 0
        self._waiting: set[Wakeup] = set()

    def notify(self, payload: str = "") -> None:  # noqa: ARG002 - a callback of LISTEN gets it, and it is empty
        """Wake all waiting projections: there was an append, or a notification may have been missed."""
        self.count += 1
        self._wake()

    def update_head(self, snapshot: HasHead) -> None:
        """Note the end of the log, and wake all waiting projections if it has grown."""
        has_grown, self.head = snapshot.head > self.head, snapshot.head
        if has_grown:
            self._wake()

    async def wait(
        self, count: int, head: int, *, stop: StopSignal, clock: Clock, timeout_s: float | None = None
    ) -> bool:
        """Wait until there may be new events or the worker is to stop (True), or until the timeout (False).

        Args:
            count: The value of `count` when the log was last read.
            head: The end of the log at that time.
            stop: The worker's stop.
            clock: Time.
            timeout_s: How long to wait; None: without limit.
        """
        wakeup = Wakeup(clock=clock)
        deadline_s = None if timeout_s is None else clock.now_s() + timeout_s
        self._waiting.add(wakeup)
        stop.add_callback(wakeup.wake)
        try:
            while self.count == count and self.head <= head and not stop.is_set:
                if not await wakeup.wait(deadline_s):
                    return False
            return True
        finally:
            self._waiting.discard(wakeup)
            stop.remove_callback(wakeup.wake)

    def _wake(self) -> None:
        for wakeup in self._waiting:
            wakeup.wake()
