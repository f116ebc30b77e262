"""One call of a user's function, whatever it turns out to be: a run of a service, a tick of a periodic worker."""

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


class CallWork:
    """The work of an instance each run of which is one call with a new context.

    Attributes:
        timetable: When the calls are due; None: one follows the other.
        tenure: The lease of a singleton.
    """

    __slots__ = ("_clock", "_function", "_outages", "_spec", "tenure", "timetable")

    def __init__(
        self,
        spec: WorkerSpec,
        function: Callable[[Context], Any],
        timetable: Schedule | None,
        *,
        clock: Clock,
        outages: DatabaseStatus,
        tenure: LeaseHandle | None = None,
    ) -> None:
        self.timetable = timetable
        self.tenure = tenure
        self._spec = spec
        self._function = function
        self._clock = clock
        self._outages = outages

    async def run(self, stop: StopSignal) -> None:
        """Do one run.

        Raises:
            LeaseLost: The lease was lost before the run could begin.
        """
        tenure = self.tenure
        if tenure is not None and tenure.lease is None:
            raise LeaseLost(f"the lease {tenure.name} is lost")
        context = Context(self._spec, stop=stop, outages=self._outages, clock=self._clock, tenure=tenure)
        await call(self._function, context)


async def call(function: Callable[..., Any], context: Context, *args: object) -> None:
    """Call a worker's function with its context, and await it.

    Raises:
        TypeError: It was no coroutine after all, which the check at the start cannot always see.
    """
    # Runs in the worker's own task, whose tasks inherit it: a library's entry says whose doing it was.
    current_worker.set(context.name)
    made = function(context, *args)
    if not isawaitable(made):
        raise TypeError(f"{context.name} made {type(made).__name__!r} instead of a coroutine: is it `async def`?")
    result = await made
    if iscoroutine(result):
        # Or Python warns of it, later and elsewhere.
        result.close()
        raise TypeError(f"{context.name} returned a coroutine that nobody awaits: is an `await` missing?")
