"""A thread that notices an event loop which does not turn, and says which code holds it."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from supervisor.journal import tell

if TYPE_CHECKING:
    import asyncio

    from supervisor.clock import Clock


class BlockedLoop:
    """Asks the loop for a sign of life and, when none comes, puts the stack into the journal.

    The thread cannot run while foreign code holds the interpreter's lock, nor while the process is
    stopped; then it comes late itself, and says so instead of accusing whoever runs by then.

    Attributes:
        limit_s: How long the loop may be silent; a reload may change it. 0: for ever.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit_s: float, clock: Clock) -> None:
        self.limit_s = limit_s
        self._loop = loop
        self._clock = clock
        self._stopped = threading.Event()
        self._turned = threading.Event()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="blocked loop", daemon=True)

    def start(self) -> None:
        """Begin to watch; call it from the loop's own thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch; it does not wait."""
        self._stopped.set()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._stopped.wait(self.limit_s or 1.0):
            if self.limit_s:
                self._ask()

    def _ask(self) -> None:
        asked_s, limit_s = self._clock.now_s(), self.limit_s
        self._turned.clear()
        try:
            self._loop.call_soon_threadsafe(self._turned.set)
        except RuntimeError:  # the loop is closed
            self._stopped.set()
            return
        if self._turned.wait(limit_s):
            self._blame_nobody(asked_s, limit_s)
            return
        next_s = limit_s
        while not self._stopped.is_set():
            tell("loop.blocked", blocked_s=round(self._clock.now_s() - asked_s, 2), stack=self._stack())
            # Told again at doubling distances while it lasts.
            if self._turned.wait(next_s):
                tell("loop.unblocked", blocked_s=round(self._clock.now_s() - asked_s, 2))
                return
            next_s *= 2

    def _blame_nobody(self, asked_s: float, limit_s: float) -> None:
        late_s = self._clock.now_s() - asked_s
        if late_s > 2 * limit_s:
            stack = "Neither the loop nor this watch ran: the process was stopped, or code held the interpreter's lock."
            tell("loop.blocked", blocked_s=round(late_s, 2), stack=stack)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented, in spite of its name
        return "".join(traceback.format_stack(frame)[-25:]).rstrip() if frame is not None else ""
