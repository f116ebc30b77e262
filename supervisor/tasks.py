"""The one place that starts background tasks; the owner of a task is called when it crashes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class BackgroundTasks:
    """Background tasks with an owner.

    A task that ends with an exception is reported to `on_crash` at once, not when the garbage
    collector happens to find it. A cancelled task is not reported, unless it is critical and was not
    cancelled through this class.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None]) -> None:
        self._on_crash = on_crash
        self._running: set[asyncio.Task[Any]] = set()
        self._critical: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], *, name: str, critical: bool = False) -> asyncio.Task[T]:
        """Run `work` in the background; `name` is shown in journals and stacks.

        A critical task may only be cancelled through this class: a worker that cancels every task of the
        loop must not leave a daemon behind that looks alive.
        """
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - the one place
        self._running.add(task)
        if critical:
            self._critical.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def cancel(self, name: str) -> set[asyncio.Task[Any]]:
        """Cancel the tasks of this name and return them; the caller may wait, with a deadline of its own."""
        named = {task for task in self._running if task.get_name() == name}
        self._critical -= named
        for task in named:
            task.cancel()
        return named

    def cancel_task(self, task: asyncio.Task[Any]) -> None:
        """Cancel one task, a critical one too; other tasks of its name run on."""
        self._critical.discard(task)
        task.cancel()

    def cancel_all(self) -> set[asyncio.Task[Any]]:
        """Cancel what still runs and return it; the caller waits, with a deadline of its own."""
        self._critical.clear()
        for task in self._running:
            task.cancel()
        return set(self._running)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() and task in self._critical:
            self._on_crash(task.get_name(), asyncio.CancelledError())
        self._critical.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(task.get_name(), error)
