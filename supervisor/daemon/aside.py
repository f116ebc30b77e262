"""A blocking call, made aside: in a thread that cannot keep the process from ending."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from supervisor.clock import done_within
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock

T = TypeVar("T")


async def aside(call: Callable[[], T], *, what: str, limit_s: float, clock: Clock) -> T:
    """Return what `call` returns, or raise what it raises.

    asyncio's own executor is no choice: the interpreter waits for its threads at exit, also for one
    that hangs in a file system.

    Raises:
        TimeoutError: It took longer than `limit_s`; the thread is left behind.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where T allows it

    def work() -> None:
        try:
            result, error = call(), None
        except BaseException as raised:  # noqa: BLE001 - handed over to whoever waits
            result, error = None, raised
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=work, name=what, daemon=True).start()
    if not await done_within(done, limit_s, clock=clock):
        raise TimeoutError(f"{what} has not ended after {format_duration(limit_s)}")
    return done.result()
