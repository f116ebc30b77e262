"""`[supervisor]`, `[log]` and `[database]` as values of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.location import absolute, default_control, default_state_dir
from supervisor.config.model import ConnectPolicy, DaemonConfig, DatabaseConfig, EmbeddedStore
from supervisor.config.target import read_target
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from supervisor.backoff import Backoff
    from supervisor.config.table import Faults

_BACKOFF_FIELDS = ("initial_s", "factor", "max_s", "jitter")


def daemon_config(given: dict[str, Any], path: Path, environ: Mapping[str, str]) -> DaemonConfig:
    """Return `[supervisor]`.

    Args:
        given: The fields that the file and the environment give.
        path: The configuration file; relative paths start from its folder.
        environ: The environment, for systemd's directories.
    """
    base = path.parent
    given["python_path"] = tuple(absolute(folder, base) for folder in given.get("python_path", ()))
    state_text, control_text = given.get("state_dir"), given.get("control")
    state_dir = absolute(state_text, base) if state_text else default_state_dir(path, environ)
    control = absolute(control_text, base) if control_text else default_control(state_dir, environ)
    return DaemonConfig(**{**given, "state_dir": state_dir, "control": control})


def database_config(given: dict[str, Any], path: Path, environ: Mapping[str, str], faults: Faults) -> DatabaseConfig:
    """Return `[database]`; without a usable dsn with a stand-in, since then there is a fault anyway."""
    target = read_target(given, path.parent, environ, faults) or EmbeddedStore()
    defaults = DatabaseConfig(target)
    given["startup"] = _connect_policy(given.get("startup", {}), defaults.startup, "startup", faults)
    given["runtime"] = _connect_policy(given.get("runtime", {}), defaults.runtime, "runtime", faults)
    database = defaults._replace(**given)
    if database.pool_min > database.pool_max and not faults.concern("database", "pool_max"):
        problem = f"{database.pool_min} is more than pool_max, which is {database.pool_max}"
        faults.add(("database", "pool_min"), problem)
    return database


def backoff(given: dict[str, Any], default: Backoff, where: tuple[str, ...], faults: Faults) -> Backoff:
    """Return a backoff: what is given, the rest from `default`; `where` is its key path."""
    result = default._replace(**given) if given else default
    if result.max_s < result.initial_s and not (faults.concern(*where, "max") or faults.concern(*where, "initial")):
        low, high = format_duration(result.max_s), format_duration(result.initial_s)
        if "max_s" in given:
            faults.add((*where, "max"), f"{low} is less than initial, which is {high}")
        else:
            faults.add((*where, "initial"), f"{high} is more than max, which is {low}")
    return result


def _connect_policy(given: dict[str, Any], default: ConnectPolicy, name: str, faults: Faults) -> ConnectPolicy:
    delays = {field: given.pop(field) for field in _BACKOFF_FIELDS if field in given}
    return default._replace(backoff=backoff(delays, default.backoff, ("database", name), faults), **given)
