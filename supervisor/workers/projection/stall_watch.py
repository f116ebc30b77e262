"""The timer of a projection's run: stops a batch that takes too long, and checks the lag while there is work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event
from supervisor.supervision.ports import StallTimeout
from supervisor.supervision.run import await_stack
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from supervisor.workers.projection.shard_context import ShardContext

_INTERVAL_S = 1.0
_MIN_INTERVAL_S = 0.02


class StallWatch:
    """The one timer of a run; it does nothing while the run has nothing to do.

    Args:
        context: The shard.
        check: Called at each interval; returns whether there is still something to check.
    """

    __slots__ = ("_cancels", "_check", "_context", "_started_s", "_task", "_wakeup")

    def __init__(self, context: ShardContext, check: Callable[[], bool]) -> None:
        self._context = context
        self._check = check
        self._wakeup = Wakeup(clock=context.clock)
        self._task: asyncio.Task[Any] | None = None
        self._started_s = 0.0
        self._cancels = 0

    def wake(self) -> None:
        """Check at each interval from now on, as long as there is something to check."""
        self._wakeup.wake()

    async def run(self, call: Coroutine[Any, Any, None]) -> None:
        """Await a call of the handler in this task.

        Raises:
            StallTimeout: It took longer than `stall_timeout`, and was cancelled.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - there is one wherever something is awaited
        cancelled_before = task.cancelling()
        self._task, self._started_s, self._cancels = task, self._context.clock.now_s(), 0
        self._wakeup.wake()
        try:
            await call
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task at the same time; then that counts.
            if not self._uncancel(task) or task.cancelling() > cancelled_before:
                raise
            raise self._stalled() from None
        finally:
            self._task = None
        if self._uncancel(task):
            raise self._stalled()

    async def watch(self) -> None:
        """Check until cancelled."""
        limit_s = self._context.spec.stall_timeout_s
        interval_s = max(_MIN_INTERVAL_S, min(_INTERVAL_S, limit_s / 4)) if limit_s else _INTERVAL_S
        while True:
            await self._wakeup.wait()
            is_busy = True
            while is_busy:
                await self._context.clock.sleep(interval_s)
                if limit_s:
                    self._cancel_stalled(limit_s)
                is_busy = self._check() or self._task is not None

    def _cancel_stalled(self, limit_s: float) -> None:
        # A batch may wait as long as an outage takes.
        if not self._context.database.is_up:
            self._started_s = self._context.clock.now_s()
        if self._task is not None and self._context.clock.now_s() >= self._started_s + limit_s:
            name, label = self._context.spec.name, self._context.shard.label
            instance: dict[str, Any] = {"instance": f"{name}/{label}"} if label else {}
            log_event("worker.stalled", worker=name, limit_s=limit_s, stack=await_stack(self._task), **instance)
            # And again after as long: the handler may swallow the first one.
            self._started_s = self._context.clock.now_s()
            self._cancels += 1
            self._task.cancel()

    def _uncancel(self, task: asyncio.Task[Any]) -> bool:
        """Take back the cancellations that came from here, and return whether there were any."""
        cancels, self._cancels = self._cancels, 0
        for _ in range(cancels):
            task.uncancel()
        return cancels > 0

    def _stalled(self) -> StallTimeout:
        return StallTimeout(f"took longer than {self._context.spec.stall_timeout_s:g} s")
