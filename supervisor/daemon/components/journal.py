"""The journal as a component: its level and format follow the configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import supervisor
from supervisor.daemon.component import Component, Prepared
from supervisor.journal import journal_asyncio_exception, log_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.config.model import Config
    from supervisor.runtime import JournalPort


class JournalComponent(Component):
    """The process opens the journal before the loop exists, and closes it after everything else."""

    name = "journal"

    def __init__(self, config: Config, journal: JournalPort) -> None:
        self._path = config.path
        self._config = config.log
        self._journal = journal

    async def start(self) -> None:
        """Have exceptions logged that asyncio would print."""
        asyncio.get_running_loop().set_exception_handler(journal_asyncio_exception)
        log_event("daemon.starting", version=supervisor.__version__, config=str(self._path))

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Prepare another level or format."""

        async def apply() -> None:
            self._journal.set_level(new.log.level)
            self._journal.set_format(new.log.format)
            self._config = new.log

        if old.log == new.log:
            return Prepared(is_empty=True)
        return Prepared(apply=apply)

    def in_force(self, config: Config) -> Config:
        """Return `config` with the `[log]` in force."""
        return config._replace(log=self._config)

    def status(self) -> Mapping[str, object]:
        """Return how much was written, folded and dropped."""
        counts = self._journal.counts
        return {"journal": {"written": counts.written, "folded": counts.folded, "dropped": counts.dropped}}
