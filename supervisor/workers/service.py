"""A service: runs until it is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.workers.call import call
from supervisor.workers.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.database.stop import StopSignal
    from supervisor.supervision.outage import Outages


class ServiceWork:
    """One instance of a service."""

    __slots__ = ("_clock", "_function", "_outages", "_spec")

    # One run follows the other.
    timetable = None

    def __init__(self, spec: WorkerSpec, function: Callable[[Context], Any], *, clock: Clock, outages: Outages) -> None:
        self._spec = spec
        self._function = function
        self._clock = clock
        self._outages = outages

    async def run(self, stop: StopSignal) -> None:
        """Do one run."""
        await call(self._function, Context(self._spec, stop=stop, outages=self._outages, clock=self._clock))
