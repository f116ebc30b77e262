"""`migrate`: the SQL schema of the configured database, created or brought up to date."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from supervisor.cli.configuration import load_config
from supervisor.cli.database_command import connect_once
from supervisor.cli.output import print_error, print_out
from supervisor.clock import SystemClock
from supervisor.config.model import EmbeddedStore, Server
from supervisor.database.schema import migrate as schema
from supervisor.exit_status import ExitStatus

if TYPE_CHECKING:
    from supervisor.config.model import Config
    from supervisor.database.schema.migrate import MigrationResult


def migrate(config_path: str | None) -> int:
    """Bring the schema up to date, say what was done and return the exit status."""
    return asyncio.run(_migrate(config_path))


async def _migrate(config_path: str | None) -> int:
    config = load_config(config_path)
    match config.database.target:
        case EmbeddedStore():
            return _leave_it_to_the_daemon(config)
        case Server():
            async with connect_once(config) as connection:
                result = await schema.migrate(connection, mode="auto", clock=SystemClock(), rng=random.SystemRandom())
            print_out(_sentence(result))
            return ExitStatus.OK


def _leave_it_to_the_daemon(config: Config) -> int:
    what = f"{config.path}: the embedded store runs only while its daemon does"
    if config.database.migrate == "check":
        print_error(f'{what}, which has to migrate it: set database.migrate = "auto"')
        return ExitStatus.CONFIG
    print_out(f"{what}, which migrates it at its start; there is nothing to do.")
    return ExitStatus.OK


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
