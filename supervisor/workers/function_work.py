"""Work whose runs are calls of the user's function: a service's run, a periodic worker's tick."""

from __future__ import annotations

from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any

from supervisor.errors import LeaseLost
from supervisor.journal import current_worker
from supervisor.workers.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.leases.lease import LeaseHandle
    from supervisor.stop_signal import StopSignal
    from supervisor.supervision.ports import DatabaseStatus, Schedule


class FunctionWork:
    """Work that calls a function with a new context for each run.

    Attributes:
        schedule: When the calls are due; None: each call follows the one before.
        lease_handle: The lease of a singleton.
    """

    __slots__ = ("_clock", "_database", "_handler", "_spec", "lease_handle", "schedule")

    def __init__(
        self,
        spec: WorkerSpec,
        handler: Callable[[Context], Any],
        *,
        clock: Clock,
        database: DatabaseStatus,
        schedule: Schedule | None = None,
        lease_handle: LeaseHandle | None = None,
    ) -> None:
        self.schedule = schedule
        self.lease_handle = lease_handle
        self._spec = spec
        self._handler = handler
        self._clock = clock
        self._database = database

    async def run(self, stop: StopSignal) -> None:
        """Do one run.

        Raises:
            LeaseLost: The lease was lost before the run could begin.
        """
        lease_handle = self.lease_handle
        if lease_handle is not None and lease_handle.lease is None:
            raise LeaseLost(f"the lease {lease_handle.name} is lost")
        context = Context(self._spec, stop=stop, database=self._database, clock=self._clock, lease_handle=lease_handle)
        await call_handler(self._handler, context)


async def call_handler(handler: Callable[..., Any], context: Context, *args: object) -> None:
    """Call a worker's function with its context, and await it.

    Raises:
        TypeError: It was no coroutine function after all; the check at the start cannot always see that.
    """
    # The task and every task it starts inherit this, so that a library's log entries name the worker.
    current_worker.set(context.name)
    awaitable = handler(context, *args)
    if not isawaitable(awaitable):
        kind = type(awaitable).__name__
        raise TypeError(f"{context.name} made {kind!r} instead of a coroutine: is it `async def`?")
    result = await awaitable
    if iscoroutine(result):
        # Otherwise Python warns about it, later and elsewhere.
        result.close()
        raise TypeError(f"{context.name} returned a coroutine that was never awaited: is an `await` missing?")
