"""The users' functions as a component: imported before the first connection, and again by each reload."""

from __future__ import annotations

import gc
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from supervisor.daemon.component import Component, Prepared
from supervisor.workers.handlers import import_handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.clock import Clock
    from supervisor.config.model import Config


class HandlersComponent(Component):
    """Imports the function of each worker.

    Attributes:
        handlers: The function of each worker, by the worker's name.
    """

    name = "handlers"

    def __init__(self, config: Config, *, clock: Clock, on_step: Callable[[str], object]) -> None:
        self.handlers: Mapping[str, Any] = MappingProxyType({})
        self._config = config
        self._clock = clock
        self._on_step = on_step

    async def start(self) -> None:
        """Import the workers.

        Raises:
            ConfigError: One of them cannot be imported.
        """
        self._on_step("Importing the workers")
        self.handlers = await self._import(self._config)
        gc.enable()  # the command line put it off

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Import the workers of a new configuration."""
        handlers = await self._import(new)

        async def apply() -> None:
            # Those of removed workers too: a start that is still under way may start its workers at any moment.
            self.handlers = {**self.handlers, **handlers}

        async def finish() -> None:
            self.handlers = handlers

        return Prepared(apply=apply, finish=finish, is_empty=old.workers.keys() == handlers.keys())

    async def _import(self, config: Config) -> Mapping[str, Any]:
        return await import_handlers(
            config.workers.values(),
            python_path=config.daemon.python_path,
            source=str(config.path),
            clock=self._clock,
        )
