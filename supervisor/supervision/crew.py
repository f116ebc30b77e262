"""The instances of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.runner import Runner
    from supervisor.supervision.state import Wanted


class Crew:
    """One worker: its configuration, the user's function, and the instances that run it.

    Attributes:
        spec: The configuration.
        function: The user's function.
        wanted: What is wanted of the worker, whichever instances stand for it now.
        runners: Its instances, by replica.
        tasks: The task in which each of them lives.
        change: Which replacement of the instances is the latest; an earlier one gives way.
    """

    __slots__ = ("change", "function", "runners", "spec", "tasks", "wanted")

    def __init__(self, spec: WorkerSpec, function: Any, wanted: Wanted) -> None:
        self.spec = spec
        self.function = function
        self.wanted = wanted
        self.runners: list[Runner] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.change = 0

    def retune(self, spec: WorkerSpec) -> None:
        """Judge and stop the instances by another policy from now on; they run on."""
        self.spec = spec
        for runner in self.runners:
            runner.spec = spec
