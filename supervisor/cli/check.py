"""`check`: everything that could be wrong, found without running anything."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from supervisor.cli.configuration import read_with_unit_credentials
from supervisor.cli.output import print_error, print_out
from supervisor.clock import SystemClock
from supervisor.config.model import EmbeddedStore, Projection, Server
from supervisor.config.partial_read import readable_workers
from supervisor.config.paths import find_config, from_here
from supervisor.errors import ConfigError, ConfigFault, SupervisorError
from supervisor.exit_status import ExitStatus
from supervisor.workers.handlers import import_handlers

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.config.model import Config


def check(config_path: str | None, *, connect: bool) -> int:
    """Print every fault, or what was found to be right, and return 78 or 0."""
    path = find_config(config_path, os.environ)
    try:
        config = read_with_unit_credentials(path)
    except ConfigError as error:
        unloadable = asyncio.run(_try_what_is_readable(path))
        print_error("\n".join(dict.fromkeys(map(str, (*error.faults, *unloadable)))))
        return ExitStatus.CONFIG
    faults, remark = asyncio.run(_try(config, connect=connect))
    if faults:
        print_error("\n".join(faults))
        return ExitStatus.CONFIG
    count = len(config.workers)
    print_out(f"{path} is right: {count} worker{'' if count == 1 else 's'}{remark}{_pool_warning(config)}")
    return ExitStatus.OK


def _pool_warning(config: Config) -> str:
    """Return what to say of a pool that the projections alone can use up."""
    shards = sum(spec.kind.shards for spec in config.workers.values() if isinstance(spec.kind, Projection))
    pool_max = config.database.pool_max
    if shards < pool_max or not shards:
        return ""
    return (
        f"; the projections' {shards} shard{'' if shards == 1 else 's'} can have all connections of "
        f"database.pool_max = {pool_max}: handlers that use ctx.db beside ctx.tx need more"
    )


async def _try_what_is_readable(path: Path) -> tuple[ConfigFault, ...]:
    """Return the faults of the imports, as far as a wrong configuration says what to import."""
    specs, python_path = readable_workers(path, os.environ)
    try:
        await import_handlers(specs, python_path=python_path, source=str(from_here(path)), clock=SystemClock())
    except ConfigError as error:
        return error.faults
    return ()


async def _try(config: Config, *, connect: bool) -> tuple[list[str], str]:
    """Return every fault that trying finds, and what else there is to say."""
    clock = SystemClock()
    faults: list[str] = []
    try:
        await import_handlers(
            config.workers.values(), python_path=config.daemon.python_path, source=str(config.path), clock=clock
        )
    except SupervisorError as error:
        faults.append(str(error))
    remark = ""
    try:
        match config.database.target:
            case EmbeddedStore():
                from supervisor.database.embedded.process import find_programs  # noqa: PLC0415 - only an embedded store

                find_programs()
                remark = ", the embedded PostgreSQL is installed"
            case Server() as server if connect:
                from supervisor.cli.database_check import try_database  # noqa: PLC0415 - loads the driver

                remark = await try_database(server, config, clock)
            case Server():
                pass
    except ConfigError as error:
        faults.append(str(error))
    except SupervisorError as error:
        faults.append(f"{config.path}: database.dsn: {error}")
    return faults, remark
