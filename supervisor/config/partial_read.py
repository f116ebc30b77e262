"""The workers of a configuration that is wrong, as far as they can be read: enough to try their imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.environment import override
from supervisor.config.kinds import DEFAULT_KIND, KINDS
from supervisor.config.model import WorkerSpec
from supervisor.config.paths import absolute, from_here
from supervisor.config.table_reader import FaultCollector, read_toml
from supervisor.config.validators import InvalidValue, function, path_texts
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from supervisor.config.kinds import WorkerKind


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
    override(tables, environ, FaultCollector(str(path)))
    workers, daemon = tables.get("workers"), tables.get("supervisor")
    specs = [
        WorkerSpec(name=name, run=run, kind=_kind_of(table).fallback)
        for name, table in (workers.items() if isinstance(workers, dict) else ())
        if (run := _run_of(table)) is not None
    ]
    try:
        folders = path_texts(daemon.get("python_path", [])) if isinstance(daemon, dict) else []
    except InvalidValue:
        folders = []
    return specs, [absolute(folder, path.parent) for folder in folders]


def _kind_of(table: dict[str, Any]) -> WorkerKind:
    """Return the kind that a table names; a wrong one has a fault of its own, and is checked as the default kind."""
    name = table.get("kind")
    return KINDS.get(name, DEFAULT_KIND) if isinstance(name, str) else DEFAULT_KIND


def _run_of(table: object) -> str | None:
    try:
        return function(table.get("run")) if isinstance(table, dict) else None
    except InvalidValue:
        return None
