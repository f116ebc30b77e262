"""Every key of the configuration, once: for the reader, the environment and the commented file alike.

Defaults stand in the model. What a later version adds is listed by name only, to say so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from supervisor.config.table_reader import Key
from supervisor.config.validators import (
    choice,
    cron,
    duration,
    factor,
    function,
    globs,
    path_text,
    path_texts,
    secret_text,
    table,
    truth,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

_MANY = 1_000_000

BACKOFF: Mapping[str, Key] = {
    "initial": Key("initial_s", duration()),  # zero would be a hot loop
    "factor": Key("factor", factor),
    "max": Key("max_s", duration()),
    "jitter": Key("jitter", choice("full", "none")),
}

CONNECT: Mapping[str, Key] = {
    "attempts": Key("attempts", whole(0, _MANY)),
    **BACKOFF,
    "retry_refused": Key("retry_refused", truth),
}

SUPERVISOR: Mapping[str, Key] = {
    "ready": Key("ready", choice("connected", "started")),
    "stop_timeout": Key("stop_timeout_s", duration(zero=True)),
    "stall_warning": Key("stall_warning_s", duration()),
    "state_dir": Key("state_dir", path_text),
    "control": Key("control", path_text),
    "python_path": Key("python_path", path_texts),
}

LOG: Mapping[str, Key] = {
    "level": Key("level", choice("debug", "info", "warning", "error", "critical")),
    "format": Key("format", choice("auto", "journal", "terminal", "json")),
}

DATABASE: Mapping[str, Key] = {
    "dsn": Key("dsn", secret_text),
    "dsn_file": Key("dsn_file", path_text),
    "pool_min": Key("pool_min", whole(0, 10_000)),
    "pool_max": Key("pool_max", whole(1, 10_000)),
    "connect_timeout": Key("connect_timeout_s", duration()),
    "command_timeout": Key("command_timeout_s", duration()),
    "migrate": Key("migrate", choice("auto", "check")),
    "probe_interval": Key("probe_interval_s", duration()),
    "startup": Key("startup", table, CONNECT),
    "runtime": Key("runtime", table, CONNECT),
}

COMMON: Mapping[str, Key] = {
    "kind": Key("kind", choice("service", "periodic", "projection")),
    "run": Key("run", function),
    "restart": Key("restart", choice("always", "on-failure", "never")),
    "max_restarts": Key("max_restarts", whole(0, _MANY)),
    "window": Key("window_s", duration()),
    "exhausted": Key("exhausted", choice("stop", "exit")),
    "backoff": Key("backoff", table, BACKOFF),
    "stop_timeout": Key("stop_timeout_s", duration(zero=True)),
    "stall_timeout": Key("stall_timeout_s", duration(zero=True)),
    "singleton": Key("singleton", truth),
    "settings": Key("settings", table),
}

SERVICE: Mapping[str, Key] = {"replicas": Key("replicas", whole(1, 100_000))}

PERIODIC: Mapping[str, Key] = {
    "every": Key("every_s", duration()),
    "cron": Key("cron", cron),
    "immediate": Key("immediate", truth),
}

PROJECTION: Mapping[str, Key] = {
    "streams": Key("streams", globs),
    "batch": Key("batch", whole(1, 100_000)),
    "shards": Key("shards", whole(1, 1000)),
    "poison": Key("poison", choice("stop", "dead-letter")),
    "lag_warning": Key("lag_warning_s", duration(zero=True)),
}

WORKER: Mapping[str, Key] = {**COMMON, **SERVICE, **PERIODIC, **PROJECTION}

EVENTS: Mapping[str, Key] = {"keep": Key("keep_s", duration(zero=True))}

TOP: Mapping[str, Key] = {
    "supervisor": Key("supervisor", table, SUPERVISOR),
    "log": Key("log", table, LOG),
    "database": Key("database", table, DATABASE),
    "events": Key("events", table, EVENTS),
    "workers": Key("workers", table),
}

LATER_SECTIONS = ("http",)
LATER_KINDS: Mapping[str, tuple[str, ...]] = {
    "jobs": ("queue", "concurrency", "attempts", "retry", "transactional"),
}
