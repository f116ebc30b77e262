"""The whole configuration: file and environment in, frozen values or every fault out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.environment import override
from supervisor.config.location import from_here
from supervisor.config.model import Config, EventsConfig, LogConfig
from supervisor.config.schema import LATER_SECTIONS, TOP
from supervisor.config.section import daemon_config, database_config
from supervisor.config.table import Faults, read_table
from supervisor.config.toml_file import read_toml
from supervisor.config.worker import read_workers
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LATER = {name: f"this version does not have [{name}] yet; leave the section out" for name in LATER_SECTIONS}


def read_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration that a file and the environment give together.

    Args:
        path: The file; relative paths in it start from its folder.
        environ: The environment: overrides, systemd's directories, libpq's variables.

    Raises:
        ConfigError: Something is wrong with it, and here is everything that is.
    """
    path = from_here(path)
    tables = read_toml(path)
    faults = Faults(str(path))
    override(tables, environ, faults)
    given = read_table(tables, TOP, (), faults, _LATER)
    daemon = daemon_config(given.get("supervisor", {}), path, environ)
    log = LogConfig(**given.get("log", {}))
    database = database_config(given.get("database", {}), path, environ, faults)
    events = EventsConfig(**given.get("events", {}))
    workers = read_workers(given.get("workers", {}), daemon.stop_timeout_s, faults)
    if faults.found:
        raise ConfigError(*faults.found)
    return Config(path, path.stem, daemon, log, database, workers, events)
