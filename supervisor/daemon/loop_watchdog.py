"""A thread that notices a blocked event loop and logs which code blocks it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.daemon.component import Component, Prepared
from supervisor.journal import log_event
from supervisor.threads import frame_stack, thread_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from types import FrameType

    from supervisor.clock import Clock
    from supervisor.config.model import Config

# CPython waits for the interpreter's lock in steps of 5 ms (sys.getswitchinterval). A thread that was suspended, or
# that an overloaded host did not schedule, makes none of them.
_LOCK_WAITS_PER_S = 50
_LOCK_HELD = "code outside Python (a C extension) held the interpreter's lock, so that no thread could run"


class LoopWatchdog(Component):
    """Probes the loop and, when it does not answer in time, logs its stack.

    This thread does not run either while C code holds the interpreter's lock, or while the process is
    suspended. It then wakes up late, and logs which of the two it was.
    """

    name = "loop watchdog"

    def __init__(self, *, limit_s: float, workers: Callable[[], Container[str]], clock: Clock) -> None:
        self._workers = workers
        self._limit_s = limit_s
        self._clock = clock
        self._is_stopped = False
        self._changed = threading.Event()
        self._answered = threading.Event()
        self._lock_waits = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0

    async def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        threading.Thread(target=self._watch, name=self.name, args=(self._loop,), daemon=True).start()

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Prepare another `stall_warning`."""

        async def apply() -> None:
            self._limit_s = new.daemon.stall_warning_s
            self._changed.set()

        return Prepared(apply=apply, is_empty=old.daemon == new.daemon)

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - nothing is waited for
        """End the thread; it is not waited for."""
        self._is_stopped = True
        self._changed.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._is_stopped:
            self._changed.clear()
            limit_s = self._limit_s
            self._lock_waits = _voluntary_switches()
            due_s = self._clock.now_s() + limit_s
            if self._changed.wait(limit_s):
                continue
            # Waking up late by the same length again is more than the machine's load explains.
            if not self._overslept(due_s, limit_s):
                self._probe(loop, limit_s)

    def _probe(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        asked_s = self._clock.now_s()
        self._lock_waits = _voluntary_switches()
        self._answered.clear()
        try:
            loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:  # the loop is closed
            self._is_stopped = True
            return
        has_answered = self._answered.wait(limit_s)
        if self._overslept(asked_s + limit_s, limit_s) or has_answered:
            return
        next_s = limit_s
        while not self._is_stopped:
            self._log_blocked(loop, self._clock.now_s() - asked_s)
            # Logged again at doubling distances while it lasts.
            if self._answered.wait(next_s):
                log_event("loop.responsive", blocked_s=round(self._clock.now_s() - asked_s, 2))
                return
            next_s *= 2

    def _overslept(self, due_s: float, limit_s: float) -> bool:
        """Log and return whether this thread could not run for as long as the loop may be blocked."""
        late_s = self._clock.now_s() - due_s
        if late_s <= limit_s:
            return False
        if _voluntary_switches() - self._lock_waits > late_s * _LOCK_WAITS_PER_S:
            log_event("loop.blocked", blocked_s=round(late_s, 2), reason=_LOCK_HELD)
        else:
            log_event("process.suspended", suspended_s=round(late_s, 2))
        return True

    def _log_blocked(self, loop: asyncio.AbstractEventLoop, blocked_s: float) -> None:
        frame = thread_frame(self._loop_thread)
        # The place keeps the blocks of two workers apart when equal entries are folded.
        log_event(
            "loop.blocked",
            blocked_s=round(blocked_s, 2),
            stack=frame_stack(frame),
            place=_place(frame),
            worker=self._current_worker(loop),
        )

    def _current_worker(self, loop: asyncio.AbstractEventLoop) -> str | None:
        """Return the worker whose run blocks the loop; its task bears its name."""
        task = asyncio.current_task(loop)
        name = task.get_name().partition("/")[0] if task is not None else ""
        return name if name in self._workers() else None


def _voluntary_switches() -> int:
    """Return how often this thread has begun to wait; each step of a wait for the interpreter's lock counts."""
    with contextlib.suppress(OSError), Path("/proc/thread-self/status").open("rb") as status:
        for line in status:
            if line.startswith(b"voluntary_ctxt_switches:"):
                return int(line.split()[1])
    return 0


def _place(frame: FrameType | None) -> str | None:
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
