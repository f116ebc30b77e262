"""`check`: everything that could be wrong, found without running anything."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from supervisor.cli.output import complain, show
from supervisor.cli.own_configuration import read_as_its_unit
from supervisor.clock import SystemClock
from supervisor.config.finding import find_config
from supervisor.config.location import from_here
from supervisor.config.model import EmbeddedStore, Projection, Server
from supervisor.config.salvage import readable_workers
from supervisor.errors import ConfigError, SupervisorError
from supervisor.workers.handlers import import_handlers

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.config.model import Config
    from supervisor.errors import ConfigFault

_CONFIG = 78


def check(config_path: str | None, *, connect: bool) -> int:
    """Print every fault, or what was found to be right, and return 78 or 0."""
    try:
        path = find_config(config_path, os.environ)
    except ConfigError as error:
        complain(str(error))
        return _CONFIG
    try:
        config = read_as_its_unit(path)
    except ConfigError as error:
        unloadable = asyncio.run(_try_what_is_readable(path))
        complain("\n".join(dict.fromkeys(map(str, (*error.faults, *unloadable)))))
        return _CONFIG
    faults, remark = asyncio.run(_try(config, connect=connect))
    if faults:
        complain("\n".join(faults))
        return _CONFIG
    count = len(config.workers)
    show(f"{path} is right: {count} worker{'' if count == 1 else 's'}{remark}{_tightness(config)}")
    return 0


def _tightness(config: Config) -> str:
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
                from supervisor.cli.database_check import try_database  # noqa: PLC0415 - only with --connect

                remark = await try_database(server, config, clock)
            case Server():
                pass
    except ConfigError as error:
        faults.append(str(error))
    except SupervisorError as error:
        faults.append(f"{config.path}: database.dsn: {error}")
    return faults, remark
