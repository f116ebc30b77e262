"""The one place that starts background tasks: each has an owner that hears of its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Tasks:
    """Background tasks with an owner.

    A task that ends with an exception is reported to `on_crash` at once, not when the garbage
    collector happens to find it. A cancelled task is not reported, unless it is vital and somebody
    else cancelled it.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None]) -> None:
        self._on_crash = on_crash
        self._running: set[asyncio.Task[Any]] = set()
        self._vital: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], *, name: str, is_vital: bool = False) -> asyncio.Task[T]:
        """Run `work` in the background; `name` stands in journals and stacks.

        A vital task may only be cancelled through here: code of a user's that cancels every task of the
        loop must not leave a daemon behind that looks alive.
        """
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - the one place
        self._running.add(task)
        if is_vital:
            self._vital.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self, name: str) -> None:
        """Cancel the tasks of this name."""
        for task in self._running:
            if task.get_name() == name:
                self._vital.discard(task)
                task.cancel()

    def cancel_all(self) -> set[asyncio.Task[Any]]:
        """Cancel what still runs and return it; the caller waits, with a deadline of its own."""
        self._vital.clear()
        for task in self._running:
            task.cancel()
        return set(self._running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() and task in self._vital:
            self._on_crash(task.get_name(), asyncio.CancelledError())
        self._vital.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(task.get_name(), error)
