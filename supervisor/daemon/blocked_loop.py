"""A thread that notices an event loop which does not turn, and says which code holds it."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from types import FrameType

    from supervisor.clock import Clock

_NOBODY = "Neither the loop nor its watch ran: the process was stopped, or code held the interpreter's lock."
_DEEPEST = 25


class BlockedLoop:
    """Asks the loop for a sign of life and, when none comes, puts the stack into the journal.

    The thread cannot run while foreign code holds the interpreter's lock, nor while the process is
    stopped; then it comes late itself, and says so instead of accusing whoever runs by then.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, limit_s: float, workers: Callable[[], Container[str]], clock: Clock
    ) -> None:
        self._workers = workers
        self._limit_s = limit_s
        self._loop = loop
        self._clock = clock
        self._is_stopped = False
        self._changed = threading.Event()
        self._turned = threading.Event()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="blocked loop", daemon=True)

    def start(self) -> None:
        """Begin to watch; call it from the loop's own thread."""
        self._thread.start()

    def set_limit(self, limit_s: float) -> None:
        """Say how long the loop may be silent from now on."""
        self._limit_s = limit_s
        self._changed.set()

    def stop(self) -> None:
        """End the watch; it does not wait."""
        self._is_stopped = True
        self._changed.set()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._is_stopped:
            self._changed.clear()
            limit_s = self._limit_s
            due_s = self._clock.now_s() + limit_s
            if self._changed.wait(limit_s):
                continue
            # The same length again is no sleep that the machine's load explains.
            if not self._came_late(due_s, limit_s):
                self._ask(limit_s)

    def _ask(self, limit_s: float) -> None:
        asked_s = self._clock.now_s()
        self._turned.clear()
        try:
            self._loop.call_soon_threadsafe(self._turned.set)
        except RuntimeError:  # the loop is closed
            self.stop()
            return
        has_turned = self._turned.wait(limit_s)
        if self._came_late(asked_s + limit_s, limit_s) or has_turned:
            return
        next_s = limit_s
        while not self._is_stopped:
            self._tell_blocked(self._clock.now_s() - asked_s)
            # Told again at doubling distances while it lasts.
            if self._turned.wait(next_s):
                log_event("loop.unblocked", blocked_s=round(self._clock.now_s() - asked_s, 2))
                return
            next_s *= 2

    def _came_late(self, due_s: float, limit_s: float) -> bool:
        """Tell, and say, whether this very thread could not run for as long as the loop may be silent."""
        late_s = self._clock.now_s() - due_s
        if late_s <= limit_s:
            return False
        log_event("loop.blocked", blocked_s=round(late_s, 2), stack=_NOBODY)
        return True

    def _tell_blocked(self, blocked_s: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented, in spite of its name
        stack = "".join(traceback.format_stack(frame)[-_DEEPEST:]).rstrip() if frame is not None else ""
        # The place keeps the blocks of two workers apart when equal entries are folded.
        log_event(
            "loop.blocked", blocked_s=round(blocked_s, 2), stack=stack, place=_place(frame), worker=self._worker()
        )

    def _worker(self) -> str | None:
        """Return the worker whose run holds the loop; its task bears its name."""
        task = asyncio.current_task(self._loop)
        name = task.get_name().partition("/")[0] if task is not None else ""
        return name if name in self._workers() else None


def _place(frame: FrameType | None) -> str | None:
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
