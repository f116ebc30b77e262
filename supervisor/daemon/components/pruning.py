"""The pruning of old events as a component, with or without workers that need a lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.daemon.component import Component, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.database.database import Database
    from supervisor.tasks import BackgroundTasks

_TASK = "events: prune"


class PruningComponent(Component):
    """Prunes when `[events] keep` asks for it; once started, the task obeys each later value."""

    name = "pruning"

    def __init__(
        self, config: Config, *, database: Callable[[], Database], clock: Clock, tasks: BackgroundTasks
    ) -> None:
        self._config = config.events
        self._database = database
        self._clock = clock
        self._tasks = tasks
        self._has_started = False
        self._is_pruning = False

    async def start(self) -> None:
        """Start to prune, unless events are kept for ever."""
        self._has_started = True
        self._prune_if_wanted()

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Prepare another `keep`."""

        async def apply() -> None:
            self._config = new.events
            self._prune_if_wanted()

        return Prepared(apply=apply, is_empty=old.events == new.events)

    def in_force(self, config: Config) -> Config:
        """Return `config` with the `[events]` in force."""
        return config._replace(events=self._config)

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - nothing is waited for
        """End the task."""
        self._has_started = False
        self._tasks.cancel(_TASK)

    def _prune_if_wanted(self) -> None:
        if not self._has_started or self._is_pruning or self._config.keep_s <= 0:
            return
        from supervisor.events.pruning import Pruning  # noqa: PLC0415 - most daemons keep their events

        pruning = Pruning(self._database(), keep_s=lambda: self._config.keep_s, clock=self._clock)
        self._tasks.start(pruning.run(), name=_TASK, critical=True)
        self._is_pruning = True
