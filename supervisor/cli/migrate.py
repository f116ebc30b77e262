"""`migrate`: the SQL schema of the configured database, created or brought up to date."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from supervisor.cli.output import complain, show
from supervisor.cli.own_connection import carry_out, configuration, connected
from supervisor.clock import SystemClock
from supervisor.config.model import EmbeddedStore, Server
from supervisor.database.schema import migrate as schema

if TYPE_CHECKING:
    from supervisor.config.model import Config
    from supervisor.database.schema.migrate import MigrationResult

_CONFIG = 78


def migrate(config_path: str | None) -> int:
    """Bring the schema up to date, say what was done and return the exit status."""
    return carry_out(_migrate(config_path))


async def _migrate(config_path: str | None) -> int:
    config = configuration(config_path)
    match config.database.target:
        case EmbeddedStore():
            return _leave_it_to_the_daemon(config)
        case Server():
            async with connected(config) as connection:
                result = await schema.migrate(connection, mode="auto", clock=SystemClock(), rng=random.SystemRandom())
            show(_sentence(result))
            return 0


def _leave_it_to_the_daemon(config: Config) -> int:
    what = f"{config.path}: the embedded store runs only while its daemon does"
    if config.database.migrate == "check":
        complain(f'{what}, which has to migrate it: set database.migrate = "auto"')
        return _CONFIG
    show(f"{what}, which migrates it at its start; there is nothing to do.")
    return 0


def _sentence(result: MigrationResult) -> str:
    if result.version > result.daemon:
        return (
            f"The SQL schema has version {result.version}, newer than version {result.daemon} of this pgsupervisor, and"
            " lets it run; nothing was changed."
        )
    if result.former == result.version:
        return f"The SQL schema has version {result.version} already."
    former = f"version {result.former}" if result.former else "nothing"
    return f"The SQL schema went from {former} to version {result.version}."
