"""Every key of the configuration, once: for the loader, the environment, the reference page and the commented file.

The keys of one kind of worker are in kinds.py; defaults are in the model. What a later version adds
is only named here, so that the fault can say so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from supervisor.config.kinds import DEFAULT_KIND, KINDS
from supervisor.config.table_reader import Key
from supervisor.config.validators import (
    Choice,
    Duration,
    Integer,
    boolean,
    factor,
    function,
    path_text,
    path_texts,
    secret_text,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

_MAX_COUNT = 1_000_000

BACKOFF: Mapping[str, Key] = {
    "initial": Key("initial_s", Duration(), "parent", "The first delay."),  # zero would be a hot loop
    "factor": Key("factor", factor, "parent", "Each delay is the one before it times this."),
    "max": Key("max_s", Duration(), "parent", "The longest delay."),
    "jitter": Key(
        "jitter",
        Choice("full", "none"),
        "parent",
        "`full` draws each delay evenly between zero and its bound, so that many daemons do not return at one instant.",
    ),
}

CONNECT: Mapping[str, Key] = {
    "attempts": Key(
        "attempts", Integer(0, _MAX_COUNT), "parent", "How many attempts are made before giving up; 0: no limit."
    ),
    **BACKOFF,
    "retry_refused": Key(
        "retry_refused",
        boolean,
        "parent",
        "Whether to try again after the server has refused the login, the database or a privilege.",
    ),
}

SUPERVISOR: Mapping[str, Key] = {
    "ready": Key(
        "ready",
        Choice("connected", "started"),
        "start",
        "When systemd gets READY=1: after the first connection to the database, or at once, while still connecting.",
    ),
    "stop_timeout": Key(
        "stop_timeout_s",
        Duration(zero=True),
        "live",
        "How long work in flight may take after SIGTERM; then it is cancelled.",
    ),
    "stall_warning": Key(
        "stall_warning_s",
        Duration(),
        "live",
        "An event loop that is blocked for longer than this is reported in the journal, with the code that blocks it.",
    ),
    "state_dir": Key(
        "state_dir",
        path_text,
        "restart",
        "The folder of the daemon's lock and of the embedded database.",
        default="`$STATE_DIRECTORY`, else `.pgsupervisor` beside the file",
    ),
    "control": Key(
        "control",
        path_text,
        "restart",
        "The socket through which the commands reach the daemon.",
        default="in `$RUNTIME_DIRECTORY`, else in the state directory",
    ),
    "python_path": Key(
        "python_path",
        path_texts,
        "live",
        "Folders that workers are imported from, before all others; installed packages need none.",
        default="`[]`",
    ),
}

LOG: Mapping[str, Key] = {
    "level": Key(
        "level", Choice("debug", "info", "warning", "error", "critical"), "live", "The lowest level that is logged."
    ),
    "format": Key(
        "format",
        Choice("auto", "journal", "terminal", "json"),
        "live",
        "The form of the log; `auto` is `journal` under systemd, `terminal` on a terminal and `json` elsewhere.",
    ),
}

DATABASE: Mapping[str, Key] = {
    "dsn": Key(
        "dsn",
        secret_text,
        "reconnect",
        "The database as a URI; `embedded:`, `embedded:/path` and `ephemeral:` are a PostgreSQL of the daemon's own.",
        default="`dsn_file`, else the systemd credential `dsn`, else libpq's variables",
    ),
    "dsn_file": Key(
        "dsn_file",
        path_text,
        "reconnect",
        "A file that holds the connection string.",
        default="the systemd credential `dsn`, else libpq's variables",
    ),
    "pool_min": Key(
        "pool_min", Integer(0, 10_000), "reconnect", "How many connections the pool keeps open for the workers."
    ),
    "pool_max": Key("pool_max", Integer(1, 10_000), "reconnect", "How many connections the pool opens at most."),
    "connect_timeout": Key(
        "connect_timeout_s", Duration(), "reconnect", "How long one attempt to connect to one host may take."
    ),
    "command_timeout": Key("command_timeout_s", Duration(), "reconnect", "How long one statement may take."),
    "migrate": Key(
        "migrate",
        Choice("auto", "check"),
        "live",
        "Whether the daemon creates and upgrades its SQL schema, or only checks it.",
    ),
    "probe_interval": Key(
        "probe_interval_s",
        Duration(),
        "live",
        "How often, in an outage, the daemon checks whether the server listens again.",
    ),
    "startup": Key("startup", table, "live", "How the database is tried before the first connection.", CONNECT),
    "runtime": Key("runtime", table, "live", "How the database is tried after an outage.", CONNECT),
}

COMMON: Mapping[str, Key] = {
    "kind": Key(
        "kind", Choice(*KINDS), "replace", "What the function is and when it runs.", default=f'`"{DEFAULT_KIND.name}"`'
    ),
    "run": Key("run", function, "replace", "The async function, as `package.module:function`.", default="required"),
    "restart": Key(
        "restart",
        Choice("always", "on-failure", "never"),
        "live",
        "Whether it is started again when it ends; an outage of the database is neither a failure nor a restart.",
    ),
    "max_restarts": Key(
        "max_restarts",
        Integer(0, _MAX_COUNT),
        "live",
        "More restarts than this within `window` mean that the worker is exhausted.",
    ),
    "window": Key("window_s", Duration(), "live", "The time in which restarts are counted."),
    "exhausted": Key(
        "exhausted",
        Choice("stop", "exit"),
        "live",
        "What an exhausted worker means: it stops and the daemon is degraded, or the daemon exits with 70.",
    ),
    "backoff": Key("backoff", table, "live", "The delays between restarts.", BACKOFF),
    "stop_timeout": Key(
        "stop_timeout_s",
        Duration(zero=True),
        "live",
        "How long work in flight may take after the worker was told to stop.",
        default="`supervisor.stop_timeout`",
    ),
    "stall_timeout": Key(
        "stall_timeout_s",
        Duration(zero=True),
        "replace",
        "A call that takes longer than this is cancelled; 0: never. Not for services.",
    ),
    "singleton": Key(
        "singleton",
        boolean,
        "replace",
        "Whether one node of all on the database runs it, under a lease; a projection always is one.",
    ),
    "settings": Key("settings", table, "replace", "The worker's own values, as `ctx.settings`.", default="`{}`"),
}

WORKER: Mapping[str, Key] = {**COMMON, **{name: key for kind in KINDS.values() for name, key in kind.keys.items()}}

EVENTS: Mapping[str, Key] = {
    "keep": Key(
        "keep_s",
        Duration(zero=True),
        "live",
        "Events that are older than this, and that every projection has passed, are deleted; 0: never.",
    )
}

TOP: Mapping[str, Key] = {
    "supervisor": Key("supervisor", table, "parent", "The process as a whole.", SUPERVISOR, later=("lifespan",)),
    "log": Key("log", table, "parent", "What is logged, and in which form.", LOG, later=("levels",)),
    "database": Key(
        "database",
        table,
        "parent",
        "Where the database is and how it is reached.",
        DATABASE,
        later=("binaries", "statement_cache"),
    ),
    "events": Key("events", table, "parent", "The event log.", EVENTS),
    "workers": Key("workers", table, "parent", "The workers, a table each: `[workers.NAME]`."),
}

LATER_SECTIONS = ("http", "jobs", "alert")
