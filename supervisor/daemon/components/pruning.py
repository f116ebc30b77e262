"""The pruning of old events as a component, with or without workers that need a lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.daemon.component import Component, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.database.database import Database
    from supervisor.events.pruning import EventPruner
    from supervisor.tasks import BackgroundTasks


class PruningComponent(Component):
    """Prunes when `[events] keep` asks for it; once started, the task follows each later value."""

    name = "pruning"

    def __init__(
        self, config: Config, *, database: Callable[[], Database], clock: Clock, tasks: BackgroundTasks
    ) -> None:
        self._config = config.events
        self._database = database
        self._clock = clock
        self._tasks = tasks
        self._has_started = False
        self._pruner: EventPruner | None = None

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
        if self._pruner is not None:
            self._pruner.stop()

    def _prune_if_wanted(self) -> None:
        if not self._has_started or self._config.keep_s <= 0:
            return
        from supervisor.events.pruning import EventPruner  # noqa: PLC0415 - most daemons keep their events

        if self._pruner is None:
            self._pruner = EventPruner(
                self._database(), keep_s=lambda: self._config.keep_s, clock=self._clock, tasks=self._tasks
            )
        self._pruner.start()
