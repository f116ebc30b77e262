"""One run of a worker: its coroutine in a task of its own, whatever it does."""

from __future__ import annotations

import asyncio
import linecache
from typing import TYPE_CHECKING, Any

from supervisor.errors import DatabaseUnavailable
from supervisor.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.supervision.ports import Work
    from supervisor.tasks import BackgroundTasks

_MAX_DEPTH = 40


class Run:
    """A run under way or over.

    Attributes:
        stop: Asks it to stop.
        started_s: When it began, on the monotonic clock.
        was_cancelled_early: Whether it was cancelled before its stop was decided on, because its lease was lost.
    """

    __slots__ = ("_task", "started_s", "stop", "was_cancelled_early")

    def __init__(
        self, work: Work, *, tasks: BackgroundTasks, name: str, started_s: float, on_change: Callable[[], None]
    ) -> None:
        """Begin the run; `on_change` is called when it ends, and at each change of its stop signal."""
        self.stop = StopSignal()
        self.started_s = started_s
        self.was_cancelled_early = False
        self._task = tasks.start(_run_contained(work, self.stop), name=name)
        self.add_done_callback(on_change)
        self.stop.add_callback(on_change)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    @property
    def error(self) -> BaseException | None:
        """What it raised, once it is done; None: it ended well, or as it was asked to."""
        # Cancelled before its first step: nothing of the worker has run.
        return None if self._task.cancelled() else self._task.result()

    def request_stop(self) -> None:
        """Ask it to stop; a second call changes nothing."""
        if not self.stop.is_set:
            self.stop.set()

    def cancel(self) -> None:
        """Cancel it."""
        self.request_stop()
        self._task.cancel()

    def cancel_early(self) -> None:
        """Cancel it now, once; the stop that follows need not."""
        if not self.was_cancelled_early:
            self.was_cancelled_early = True
            self.cancel()

    def stack(self) -> str:
        """Return where it waits."""
        return await_stack(self._task)

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` once it has ended."""
        self._task.add_done_callback(lambda _: callback())


async def _run_contained(work: Work, stop: StopSignal) -> BaseException | None:
    """Do one run and return what it raised.

    A SystemExit that leaves a task ends the event loop, and with it the daemon and every other
    worker: in here it becomes a value before asyncio sees it.
    """
    try:
        await work.run(stop)
    except BaseException as error:  # noqa: BLE001 - containing whatever a worker raises is the purpose
        return None if stop.is_set and _is_clean_stop(error) else error
    return None


def _is_clean_stop(error: BaseException) -> bool:
    """Whether a worker that was asked to stop may end with this error."""
    expected = (asyncio.CancelledError, DatabaseUnavailable)
    if isinstance(error, BaseExceptionGroup):
        return error.split(expected)[1] is None
    return isinstance(error, expected)


def await_stack(task: asyncio.Task[Any]) -> str:
    """Return the places where `task` waits, outermost first, like a traceback.

    `Task.get_stack()` knows only the outermost coroutine of a waiting task, hence the walk from each
    coroutine to the one it awaits.
    """
    lines: list[str] = []
    waiter: Any = task.get_coro()
    while waiter is not None and len(lines) < _MAX_DEPTH:
        frame = _coroutine_attr(waiter, "frame")
        if frame is not None:
            path, line = frame.f_code.co_filename, frame.f_lineno
            source = linecache.getline(path, line).strip()
            lines.append(f'  File "{path}", line {line}, in {frame.f_code.co_qualname}\n    {source}')
        waiter = _coroutine_attr(waiter, "await") or _coroutine_attr(waiter, "yieldfrom")
    return "\n".join(lines)


def _coroutine_attr(waiter: object, name: str) -> Any:
    """Return an attribute that coroutines, generators and async generators spell differently."""
    for prefix in ("cr_", "gi_", "ag_"):
        if (value := getattr(waiter, prefix + name, None)) is not None:
            return value
    return None
