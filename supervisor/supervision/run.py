"""One run of a worker: its coroutine in a task of its own, whatever it does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.errors import DatabaseUnavailable
from supervisor.stop_signal import StopSignal
from supervisor.supervision.stack import await_stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.supervision.work import Work
    from supervisor.tasks import BackgroundTasks


class Run:
    """A run under way or over.

    Attributes:
        stop: What tells it to stop.
        began_s: When it began, on the monotonic clock.
        is_cut_off: Whether it has been cancelled ahead of the drain that follows.
    """

    __slots__ = ("_task", "began_s", "is_cut_off", "stop")

    def __init__(
        self, work: Work, *, tasks: BackgroundTasks, name: str, began_s: float, on_end: Callable[[], None]
    ) -> None:
        self.stop = StopSignal()
        self.began_s = began_s
        self.is_cut_off = False
        self._task = tasks.start(_contain(work, self.stop), name=name)
        self._task.add_done_callback(lambda _: on_end())
        self.stop.add_callback(on_end)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    def take_error(self) -> BaseException | None:
        """Return what it ended with; None: it ended well, or as it was told."""
        # Cancelled before its first step: nothing of the worker has run.
        return None if self._task.cancelled() else self._task.result()

    def tell_stop(self) -> None:
        """Tell it to stop, once."""
        if not self.stop.is_set:
            self.stop.set()

    def cancel(self) -> None:
        """Cancel it."""
        self.tell_stop()
        self._task.cancel()

    def cut_off(self) -> None:
        """Cancel it now, once; the drain that follows need not."""
        if not self.is_cut_off:
            self.is_cut_off = True
            self.cancel()

    def stack(self) -> str:
        """Return where it stands."""
        return await_stack(self._task)

    def when_done(self, call: Callable[[], None]) -> None:
        """Call `call` once it has ended."""
        self._task.add_done_callback(lambda _: call())


async def _contain(work: Work, stop: StopSignal) -> BaseException | None:
    """Do one run and return what it raised.

    A SystemExit that leaves a task ends the event loop, and with it the daemon and every other
    worker: in here it becomes a value before asyncio sees it.
    """
    try:
        await work.run(stop)
    except BaseException as error:  # noqa: BLE001 - containing whatever a worker raises is the purpose
        return None if stop.is_set and _is_how_one_stops(error) else error
    return None


def _is_how_one_stops(error: BaseException) -> bool:
    """Whether a worker that was told to stop may end like this."""
    expected = (asyncio.CancelledError, DatabaseUnavailable)
    if isinstance(error, BaseExceptionGroup):
        return error.split(expected)[1] is None
    return isinstance(error, expected)
