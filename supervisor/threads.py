"""One way to run a blocking call in a thread with a deadline; and where a thread is now."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from typing import TYPE_CHECKING, TypeVar

from supervisor.clock import done_within
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from supervisor.clock import Clock

T = TypeVar("T")
_MAX_FRAMES = 25


def start_thread(
    call: Callable[[], T], *, name: str, discard: Callable[[T], object] | None = None
) -> asyncio.Future[T]:
    """Run `call` in a daemon thread and return a future of its result, on the running loop.

    Args:
        call: What the thread does.
        name: The thread's.
        discard: Called with a result that nobody takes, because the future was cancelled or the loop is closed.

    asyncio's own executor is no choice: the interpreter waits for its threads at exit, also for one
    that hangs in a file system.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if done.done():
            if error is None and discard is not None:
                discard(result)  # type: ignore[arg-type]  # as below
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where T allows it

    def work() -> None:
        try:
            result, error = call(), None
        except BaseException as raised:  # noqa: BLE001 - handed over to the caller
            result, error = None, raised
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            if error is None and discard is not None:
                discard(result)  # type: ignore[arg-type]  # as above

    threading.Thread(target=work, name=name, daemon=True).start()
    return done


async def run_in_thread(call: Callable[[], T], *, what: str, timeout_s: float, clock: Clock) -> T:
    """Return what `call` returns, or raise what it raises.

    Raises:
        TimeoutError: It took longer than `timeout_s`; the thread is left behind.
    """
    done = start_thread(call, name=what)
    if not await done_within(done, timeout_s, clock=clock):
        done.cancel()  # nobody takes the result any more
        raise TimeoutError(f"{what} has not ended after {format_duration(timeout_s)}")
    return done.result()


def thread_frame(thread_id: int | None) -> FrameType | None:
    """Return the frame in which a thread is now; None: there is no such thread."""
    return sys._current_frames().get(thread_id or 0)  # noqa: SLF001 - documented, in spite of its name


def frame_stack(frame: FrameType | None) -> str:
    """Return the innermost frames of a stack as text; empty: there is none."""
    if frame is None:
        return ""
    return "".join(traceback.format_stack(frame)[-_MAX_FRAMES:]).rstrip()
