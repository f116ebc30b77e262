"""Looks at a projection while it is busy: whether one batch takes too long, and whether it falls behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event
from supervisor.supervision.ports import StallTimeout
from supervisor.supervision.run import await_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.ports import DatabaseStatus

_STEP_S = 1.0
_SHORTEST_STEP_S = 0.02


class Watch:
    """The one timer of a run; it stands still while there is nothing to do.

    Args:
        spec: The worker.
        label: Which shard it is.
        look: Called at each step; returns whether there is still something to look at.
        clock: Time.
        outages: The database: a batch may wait as long as an outage takes.
    """

    __slots__ = ("_began_s", "_busy", "_cancels", "_clock", "_label", "_look", "_outages", "_spec", "_task")

    def __init__(
        self, spec: WorkerSpec, label: str | None, look: Callable[[], bool], *, clock: Clock, outages: DatabaseStatus
    ) -> None:
        self._spec = spec
        self._label = label
        self._look = look
        self._clock = clock
        self._outages = outages
        self._busy = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._began_s = 0.0
        self._cancels = 0

    def rouse(self) -> None:
        """Look on from now on."""
        self._busy.set()

    async def over(self, call: Coroutine[Any, Any, None]) -> None:
        """Await a call of the handler in this task.

        Raises:
            Stalled: It took longer than `stall_timeout`, and was cancelled.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - there is one wherever something is awaited
        cancelled_before = task.cancelling()
        self._task, self._began_s, self._cancels = task, self._clock.now_s(), 0
        self._busy.set()
        try:
            await call
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task at the same time; then that counts.
            if not self._take_back_cancels(task) or task.cancelling() > cancelled_before:
                raise
            raise self._stalled() from None
        finally:
            self._task = None
        if self._take_back_cancels(task):
            raise self._stalled()

    async def run(self) -> None:
        """Look on until cancelled."""
        limit_s = self._spec.stall_timeout_s
        step_s = max(_SHORTEST_STEP_S, min(_STEP_S, limit_s / 4)) if limit_s else _STEP_S
        while True:
            await self._busy.wait()
            await self._clock.sleep(step_s)
            if limit_s:
                self._look_for_stall(limit_s)
            if not self._look() and self._task is None:
                self._busy.clear()

    def _look_for_stall(self, limit_s: float) -> None:
        if not self._outages.is_up:
            self._began_s = self._clock.now_s()
        if self._task is not None and self._clock.now_s() >= self._began_s + limit_s:
            instance: dict[str, Any] = {"instance": f"{self._spec.name}/{self._label}"} if self._label else {}
            log_event(
                "worker.stalled", worker=self._spec.name, limit_s=limit_s, stack=await_stack(self._task), **instance
            )
            # And again after as long: it may swallow the first one.
            self._began_s = self._clock.now_s()
            self._cancels += 1
            self._task.cancel()

    def _take_back_cancels(self, task: asyncio.Task[Any]) -> bool:
        """Whether this watch has cancelled the task, which then is not cancelled any more."""
        cancels, self._cancels = self._cancels, 0
        for _ in range(cancels):
            task.uncancel()
        return cancels > 0

    def _stalled(self) -> StallTimeout:
        return StallTimeout(f"took longer than {self._spec.stall_timeout_s:g} s")
