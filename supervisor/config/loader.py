"""The whole configuration: file and environment in, frozen values or every fault out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.backoff import Backoff
from supervisor.config.dsn_source import read_target
from supervisor.config.environment import override
from supervisor.config.kinds import DEFAULT_KIND, KINDS, LATER_KINDS
from supervisor.config.model import (
    Config,
    ConnectPolicy,
    DaemonConfig,
    DatabaseConfig,
    EmbeddedStore,
    EventsConfig,
    LogConfig,
    WorkerSpec,
)
from supervisor.config.paths import absolute, default_control, default_state_dir, from_here
from supervisor.config.schema import BACKOFF, COMMON, LATER_SECTIONS, TOP, WORKER, WORKER_NAME
from supervisor.config.table_reader import FaultCollector, read_table, read_toml
from supervisor.config.validators import describe_found, quoted, word_list
from supervisor.durations import format_duration
from supervisor.errors import ConfigError
from supervisor.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from supervisor.config.kinds import WorkerKind

_LATER_SECTIONS = {name: f"this version does not have [{name}] yet; leave the section out" for name in LATER_SECTIONS}
_NO_WORKER = 'there is no worker; add a table such as [workers.mail] with run = "package.module:function"'
_NO_FUNCTION = 'the worker has nothing to run; write run = "package.module:function"'
_BACKOFF_FIELDS = tuple(key.field for key in BACKOFF.values())


def read_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration that a file and the environment give together.

    Args:
        path: The file; relative paths in it start from its folder.
        environ: The environment: overrides, systemd's directories, libpq's variables.

    Raises:
        ConfigError: Something is wrong with it; the error has every fault.
    """
    path = from_here(path)
    tables = read_toml(path)
    faults = FaultCollector(str(path))
    override(tables, environ, faults)
    given = read_table(tables, TOP, (), faults, _LATER_SECTIONS)
    daemon = _daemon_config(given.get("supervisor", {}), path, environ)
    log = LogConfig(**given.get("log", {}))
    database = _database_config(given.get("database", {}), path, environ, faults)
    events = EventsConfig(**given.get("events", {}))
    workers = _read_workers(given.get("workers", {}), daemon.stop_timeout_s, faults)
    if faults.faults:
        raise ConfigError(*faults.faults)
    return Config(path, path.stem, daemon, log, database, workers, events)


def _daemon_config(given: dict[str, Any], path: Path, environ: Mapping[str, str]) -> DaemonConfig:
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


def _database_config(
    given: dict[str, Any], path: Path, environ: Mapping[str, str], faults: FaultCollector
) -> DatabaseConfig:
    """Return `[database]`; without a usable dsn any target is in it, since then there is a fault anyway."""
    target = read_target(given, path.parent, environ, faults) or EmbeddedStore()
    defaults = DatabaseConfig(target)
    given["startup"] = _connect_policy(given.get("startup", {}), defaults.startup, "startup", faults)
    given["runtime"] = _connect_policy(given.get("runtime", {}), defaults.runtime, "runtime", faults)
    database = defaults._replace(**given)
    if database.pool_min > database.pool_max and not faults.has_fault_at("database", "pool_max"):
        problem = f"{database.pool_min} is more than pool_max, which is {database.pool_max}"
        faults.add(("database", "pool_min"), problem)
    return database


def _backoff(given: dict[str, Any], default: Backoff, where: tuple[str, ...], faults: FaultCollector) -> Backoff:
    """Return a backoff: what is given, the rest from `default`; `where` is its key path."""
    result = default._replace(**given) if given else default
    is_known = not (faults.has_fault_at(*where, "max") or faults.has_fault_at(*where, "initial"))
    if result.max_s < result.initial_s and is_known:
        low, high = format_duration(result.max_s), format_duration(result.initial_s)
        if "max_s" in given:
            faults.add((*where, "max"), f"{low} is less than initial, which is {high}")
        else:
            faults.add((*where, "initial"), f"{high} is more than max, which is {low}")
    return result


def _connect_policy(given: dict[str, Any], default: ConnectPolicy, name: str, faults: FaultCollector) -> ConnectPolicy:
    delays = {field: given.pop(field) for field in _BACKOFF_FIELDS if field in given}
    return default._replace(backoff=_backoff(delays, default.backoff, ("database", name), faults), **given)


def _read_workers(tables: Mapping[str, Any], stop_timeout_s: float, faults: FaultCollector) -> dict[str, WorkerSpec]:
    """Return the workers by name, in the order of the file.

    Args:
        tables: The table `[workers]`.
        stop_timeout_s: The supervisor's, for workers that say none.
        faults: Takes what is wrong.
    """
    if not tables and not faults.has_fault_at("workers"):
        faults.add(("workers",), _NO_WORKER)
    workers = {}
    for name, table in tables.items():
        if not WORKER_NAME.fullmatch(name):
            faults.add(("workers", name), "a worker's name has lower-case letters, digits, _ and - only")
        if not isinstance(table, dict):
            faults.add(("workers", name), f"expected a table such as [workers.mail], {describe_found(table)}")
        elif "run" not in table and faults.variable_of(("workers", name)):
            near = nearest(name, [other for other in tables if other != name])
            meant = f'; did you mean the worker "{near}"?' if near else ""
            problem = f"the file has no such worker, so the environment has to say what it runs{meant}"
            faults.add(("workers", name, "run"), problem)
        elif (spec := _read_worker(name, table, stop_timeout_s, faults)) is not None:
            workers[name] = spec
    return workers


def _read_worker(name: str, table: dict[str, Any], stop_timeout_s: float, faults: FaultCollector) -> WorkerSpec | None:
    where = ("workers", name)
    kind_name = table.get("kind", DEFAULT_KIND.name)
    if not isinstance(kind_name, str) or kind_name not in KINDS:
        _refuse_kind(kind_name, table, where, faults)
        return None
    kind = KINDS[kind_name]
    given = read_table(table, {**COMMON, **kind.keys}, where, faults, _foreign_keys(kind, table))
    own = {key.field: given.pop(key.field) for key in kind.keys.values() if key.field in given}
    if "run" not in table:
        faults.add((*where, "run"), _NO_FUNCTION)
    given["backoff"] = _backoff(given.get("backoff", {}), Backoff(), (*where, "backoff"), faults)
    if given.get("stall_timeout_s") and not kind.has_stall_timeout:
        faults.add((*where, "stall_timeout"), _no_stall_timeout(kind))
    if kind.always_leased and given.get("singleton") is False:
        faults.add((*where, "singleton"), f"a {kind.name} is always one; leave it out")
    settings = kind.read(own, given, where, faults)
    if settings is None or "run" not in given:
        return None
    if kind.always_leased:
        given["singleton"] = True
    return WorkerSpec(name=name, **{"stop_timeout_s": stop_timeout_s, **given, "kind": settings})


def _no_stall_timeout(kind: WorkerKind) -> str:
    names = word_list([other.name for other in KINDS.values() if other.has_stall_timeout], "and")
    return f"a {kind.name} has no single call whose length could be limited; this is for workers of kind {names}"


def _refuse_kind(kind: object, table: dict[str, Any], where: tuple[str, ...], faults: FaultCollector) -> None:
    """Collect the faults of the kind, and of every key that can be checked without it."""
    if isinstance(kind, str) and kind in LATER_KINDS:
        known = word_list(list(KINDS), "and")
        problem = f'this version does not have workers of kind "{kind}" yet; it has {known}'
    else:
        near = nearest(kind, (*KINDS, *LATER_KINDS)) if isinstance(kind, str) else None
        meant = f"; did you mean {quoted(near)}?" if near is not None and near in KINDS else ""
        problem = f"expected {word_list(list(KINDS))}, {describe_found(kind)}{meant}"
    faults.add((*where, "kind"), problem)
    rest = {key: value for key, value in table.items() if key != "kind"}
    read_table(rest, WORKER, where, faults, {key: "" for keys in LATER_KINDS.values() for key in keys})


def _foreign_keys(kind: WorkerKind, table: dict[str, Any]) -> dict[str, str]:
    """Return the keys of other kinds, each with its fault."""
    this = f'this worker\'s kind is "{kind.name}"' + ("" if "kind" in table else ", the default")
    refused = {}
    for other_name, keys in LATER_KINDS.items():
        for key in keys:
            refused[key] = f'is for workers of kind "{other_name}", which this version does not have yet; {this}'
    for other in KINDS.values():
        for key in other.keys if other is not kind else ():
            refused[key] = f'is for workers of kind "{other.name}"; {this}'
    return refused
