"""`[workers.NAME]` as a value of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.backoff import Backoff
from supervisor.config.dsn_source import read_target
from supervisor.config.environment import override
from supervisor.config.model import (
    Config,
    ConnectPolicy,
    Cron,
    DaemonConfig,
    DatabaseConfig,
    EmbeddedStore,
    EventsConfig,
    Every,
    LogConfig,
    Periodic,
    Projection,
    Service,
    WorkerSpec,
)
from supervisor.config.paths import absolute, default_control, default_state_dir, from_here
from supervisor.config.schema import (
    COMMON,
    LATER_KINDS,
    LATER_SECTIONS,
    PERIODIC,
    PROJECTION,
    SERVICE,
    TOP,
    WORKER,
    WORKER_NAME,
)
from supervisor.config.table_reader import Faults, Key, nearest, read_table, read_toml
from supervisor.config.validators import found, quoted
from supervisor.durations import format_duration
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KINDS: Mapping[str, Mapping[str, Key]] = {"service": SERVICE, "periodic": PERIODIC, "projection": PROJECTION}
_KEYS: Mapping[str, Mapping[str, Key]] = {kind: {**COMMON, **keys} for kind, keys in _KINDS.items()}
_THEM = '"service", "periodic" or "projection"'
_NO_WORKER = 'there is no worker; add a table such as [workers.mail] with run = "package.module:function"'
_NO_FUNCTION = 'the worker has nothing to run; write run = "package.module:function"'
_DEFAULT_BACKOFF = Backoff()


def read_workers(tables: Mapping[str, Any], stop_timeout_s: float, faults: Faults) -> dict[str, WorkerSpec]:
    """Return the workers by name, in the order of the file.

    Args:
        tables: The table `[workers]`.
        stop_timeout_s: The supervisor's, for workers that say none.
        faults: Takes what is wrong.
    """
    if not tables and not faults.concern("workers"):
        faults.add(("workers",), _NO_WORKER)
    workers = {}
    for name, table in tables.items():
        if not WORKER_NAME.fullmatch(name):
            faults.add(("workers", name), "a worker's name has lower-case letters, digits, _ and - only")
        if not isinstance(table, dict):
            faults.add(("workers", name), f"expected a table such as [workers.mail], {found(table)}")
        elif "run" not in table and faults.variable_of(("workers", name)):
            near = nearest(name, [other for other in tables if other != name])
            meant = f'; did you mean the worker "{near}"?' if near else ""
            problem = f"the file has no such worker, so the environment has to say what it runs{meant}"
            faults.add(("workers", name, "run"), problem)
        elif (spec := _read_worker(name, table, stop_timeout_s, faults)) is not None:
            workers[name] = spec
    return workers


def _read_worker(name: str, table: dict[str, Any], stop_timeout_s: float, faults: Faults) -> WorkerSpec | None:
    where = ("workers", name)
    kind = table.get("kind", "service")
    if not isinstance(kind, str) or kind not in _KEYS:
        _refuse_kind(kind, table, where, faults)
        return None
    given = read_table(table, _KEYS[kind], where, faults, _foreign_keys(kind, table))
    if "run" not in table:
        faults.add((*where, "run"), _NO_FUNCTION)
    given["backoff"] = backoff(given.get("backoff", {}), _DEFAULT_BACKOFF, (*where, "backoff"), faults)
    match kind:
        case "service":
            given["kind"] = _service(given, where, faults)
        case "periodic":
            given["kind"] = _periodic(given, table, where, faults)
        case _:
            given["kind"] = _projection(given, where, faults)
    if given["kind"] is None or "run" not in given:
        return None
    return WorkerSpec(name=name, **{"stop_timeout_s": stop_timeout_s, **given})


def _refuse_kind(kind: object, table: dict[str, Any], where: tuple[str, ...], faults: Faults) -> None:
    """Say what is wrong with the kind, and with every key that can be judged without it."""
    if isinstance(kind, str) and kind in LATER_KINDS:
        problem = (
            f'this version does not have workers of kind "{kind}" yet; it has "service", "periodic" and "projection"'
        )
    else:
        near = nearest(kind, (*_KEYS, *LATER_KINDS)) if isinstance(kind, str) else None
        meant = f"; did you mean {quoted(near)}?" if near is not None and near in _KEYS else ""
        problem = f"expected {_THEM}, {found(kind)}{meant}"
    faults.add((*where, "kind"), problem)
    rest = {key: value for key, value in table.items() if key != "kind"}
    read_table(rest, WORKER, where, faults, {key: "" for keys in LATER_KINDS.values() for key in keys})


def _foreign_keys(kind: str, table: dict[str, Any]) -> dict[str, str]:
    """Return the keys of other kinds, each with the sentence that says so."""
    this = f'this worker\'s kind is "{kind}"' + ("" if "kind" in table else ", the default")
    refused = {}
    for other, keys in LATER_KINDS.items():
        for key in keys:
            refused[key] = f'is for workers of kind "{other}", which this version does not have yet; {this}'
    for other, known in _KINDS.items():
        for key in known if other != kind else ():
            refused[key] = f'is for workers of kind "{other}"; {this}'
    return refused


def _service(given: dict[str, Any], where: tuple[str, ...], faults: Faults) -> Service:
    if given.get("stall_timeout_s"):
        problem = (
            "a service has no single call whose length could be limited; this is for periodic workers and projections"
        )
        faults.add((*where, "stall_timeout"), problem)
    service = Service(given.pop("replicas")) if "replicas" in given else Service()
    if given.get("singleton") and service.replicas > 1:
        problem = f"a singleton runs once over all nodes, and replicas is {service.replicas}; keep one of the two"
        faults.add((*where, "singleton"), problem)
    return service


def _projection(given: dict[str, Any], where: tuple[str, ...], faults: Faults) -> Projection:
    if given.get("singleton") is False:
        faults.add((*where, "singleton"), "a projection is always one; leave it out")
    given["singleton"] = True
    return Projection(**{key.field: given.pop(key.field) for key in PROJECTION.values() if key.field in given})


def _periodic(given: dict[str, Any], table: dict[str, Any], where: tuple[str, ...], faults: Faults) -> Periodic | None:
    every_s, expression = given.pop("every_s", None), given.pop("cron", None)
    immediate = given.pop("immediate", None)
    if "every" in table and "cron" in table:
        faults.add((*where, "cron"), "every is given too; keep one of the two")
    elif "every" not in table and "cron" not in table:
        problem = 'a periodic worker needs a schedule; write every = "30s" or cron = "*/5 * * * *"'
        faults.add(where, problem)
    if every_s is not None:
        schedule: Every | Cron = Every(every_s)
    elif expression is not None:
        schedule = Cron(expression)
    else:
        return None
    # What is due at a time of day must not run at every restart of the daemon as well.
    return Periodic(schedule, isinstance(schedule, Every) if immediate is None else immediate)


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
