"""The instances of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.errors import SupervisorError
from supervisor.journal import log_event
from supervisor.supervision.state import Wanted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.runner import Runner


class UnknownWorker(SupervisorError):
    """There is no worker of this name; the message names the nearest."""

    @classmethod
    def among(cls, known: Iterable[str], name: str) -> UnknownWorker:
        """Return the error for a name that is none of the known ones."""
        from difflib import get_close_matches  # noqa: PLC0415 - only a typo needs it

        near = get_close_matches(name, [*known], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return cls(f"there is no worker {name!r}{hint}")


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

    @property
    def is_alone(self) -> bool:
        """Whether it is a single instance, whose own entries are the worker's."""
        return len(self.runners) == 1

    @property
    def has_leases(self) -> bool:
        """Whether it runs only where its leases are held."""
        return any(runner.tenancy is not None for runner in self.runners)

    def order_stop(self, reason: str, *, is_quiet: bool = False) -> None:
        """Tell every instance to end."""
        for runner in self.runners:
            runner.order(Wanted.STOPPED, reason=reason, is_quiet=is_quiet or not self.is_alone)

    def give_up_leases(self) -> None:
        """Let the leases go once nothing runs under them: nobody will stand for them here any more."""
        for runner in self.runners:
            if runner.tenancy is not None:
                runner.tenancy.give_up()

    def tell(self, event: str, *, is_quiet: bool = False, **fields: Any) -> None:
        """Say in one entry what all its replicas did; a single instance speaks for itself."""
        if not self.is_alone:
            level = "debug" if is_quiet else None
            log_event(event, level=level, worker=self.spec.name, replicas=len(self.runners), **fields)

    def retune(self, spec: WorkerSpec) -> None:
        """Judge and stop the instances by another policy from now on; they run on."""
        self.spec = spec
        for runner in self.runners:
            runner.spec = spec
