"""What can still be told of the workers when the configuration is wrong: enough to try their imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.environment import override
from supervisor.config.model import Projection, Service, WorkerSpec
from supervisor.config.paths import absolute, from_here
from supervisor.config.table_reader import Faults, read_toml
from supervisor.config.validators import WrongValue, function, path_texts
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def readable_workers(path: Path, environ: Mapping[str, str]) -> tuple[list[WorkerSpec], list[Path]]:
    """Return the workers whose function is named rightly, and `python_path`, whatever else is wrong.

    Args:
        path: The configuration file; one that is no TOML has no workers.
        environ: The environment, for its overrides.
    """
    path = from_here(path)
    try:
        tables = read_toml(path)
    except ConfigError:
        return [], []
    override(tables, environ, Faults(str(path)))
    workers, daemon = tables.get("workers"), tables.get("supervisor")
    specs = [
        WorkerSpec(name=name, run=run, kind=Projection() if table.get("kind") == "projection" else Service())
        for name, table in (workers.items() if isinstance(workers, dict) else ())
        if (run := _run_of(table)) is not None
    ]
    try:
        folders = path_texts(daemon.get("python_path", [])) if isinstance(daemon, dict) else []
    except WrongValue:
        folders = []
    return specs, [absolute(folder, path.parent) for folder in folders]


def _run_of(table: object) -> str | None:
    try:
        return function(table.get("run")) if isinstance(table, dict) else None
    except WrongValue:
        return None
