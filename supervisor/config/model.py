"""The configuration as frozen values; every default is here and nowhere else.

All durations are float seconds. Paths are absolute by the time they get here.

Named tuples and not frozen dataclasses: making a dataclass takes ten times as long as making a named tuple, and every
start makes them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from supervisor.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Level = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["auto", "journal", "terminal", "json"]


class ConnectPolicy(NamedTuple):
    """How the database is tried.

    Attributes:
        attempts: Full attempts before giving up; 0: for ever.
        backoff: The delays between them.
        retry_refused: Whether a refused login, database or privilege is tried again.
    """

    attempts: int = 0
    backoff: Backoff = Backoff(initial_s=0.25, max_s=30.0)
    retry_refused: bool = True


class Dsn:
    """A connection string that is shown only without its secrets.

    `str`, `repr` and formatting give the redacted form, so that it can be in any log or error;
    `secret_value()` is for the driver alone.
    """

    __slots__ = ("_redacted", "_text")

    def __init__(self, text: str, *, redacted: str) -> None:
        self._text = text
        self._redacted = redacted

    def secret_value(self) -> str:
        """Return the connection string with its password, for the driver."""
        return self._text

    def __str__(self) -> str:
        return self._redacted

    def __repr__(self) -> str:
        return f"Dsn({self._redacted!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dsn) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Server(NamedTuple):
    """A PostgreSQL server, or several, reached through a connection string.

    Attributes:
        dsn: The connection string; empty text means libpq's own variables alone (PGHOST, PGUSER, …).
        source: Where it was found, for people: in a variable, a key of a file, a file, a credential.
    """

    dsn: Dsn
    source: str


class EmbeddedStore(NamedTuple):
    """A PostgreSQL of the daemon's own.

    Attributes:
        path: The folder of its data; None: `postgres` in the state directory.
        ephemeral: Whether it is gone at exit (then `path` is None).
    """

    path: Path | None = None
    ephemeral: bool = False


class DatabaseConfig(NamedTuple):
    """`[database]`: where it is and how it is reached."""

    target: Server | EmbeddedStore
    pool_min: int = 1
    pool_max: int = 10
    connect_timeout_s: float = 5.0
    command_timeout_s: float = 30.0
    migrate: Literal["auto", "check"] = "auto"
    probe_interval_s: float = 1.0
    startup: ConnectPolicy = ConnectPolicy(attempts=10, retry_refused=False)
    runtime: ConnectPolicy = ConnectPolicy()


class DaemonConfig(NamedTuple):
    """`[supervisor]`: the process as a whole."""

    state_dir: Path
    control: Path
    ready: Literal["connected", "started"] = "connected"
    stop_timeout_s: float = 30.0
    stall_warning_s: float = 1.0
    python_path: tuple[Path, ...] = ()


class LogConfig(NamedTuple):
    """`[log]`: what is logged, and in which form."""

    level: Level = "info"
    format: LogFormat = "auto"


class Service(NamedTuple):
    """A worker that runs until it is stopped, `replicas` times."""

    replicas: int = 1


class Every(NamedTuple):
    """A tick each `interval_s` seconds."""

    interval_s: float


class Cron(NamedTuple):
    """A tick at each time that the cron expression matches, in the machine's time zone."""

    expression: str


class Periodic(NamedTuple):
    """A worker that runs a tick at a time.

    Attributes:
        schedule: When the ticks are due.
        immediate: Whether the first tick comes at once.
    """

    schedule: Every | Cron
    immediate: bool = True


class Projection(NamedTuple):
    """A worker that is given every event once and in order, in the transaction that moves its checkpoint.

    Attributes:
        streams: Globs (`*` and `?`) of the streams that it reads; none: all.
        batch: The most events of one call.
        shards: How many leases it is split over, by stream.
        poison: Whether an event that cannot be applied stops it or becomes a dead letter.
        lag_warning_s: The lag from which on the journal reports it; 0: never.
    """

    streams: tuple[str, ...] = ()
    batch: int = 500
    shards: int = 1
    poison: Literal["stop", "dead-letter"] = "stop"
    lag_warning_s: float = 60.0


class EventsConfig(NamedTuple):
    """`[events]`: the event log.

    Attributes:
        keep_s: Events older than this, and passed by every projection, are pruned; 0: never.
    """

    keep_s: float = 0.0


class WorkerSpec(NamedTuple):
    """`[workers.NAME]`: one worker.

    Attributes:
        name: `[a-z0-9][a-z0-9_-]*`.
        run: `package.module:function`.
        kind: What the function is and when it runs.
        restart: What happens when it ends.
        max_restarts: Restarts within `window_s`; one more means exhausted.
        window_s: The window in which restarts are counted.
        exhausted: Whether the worker alone stops, or the daemon exits with 70.
        backoff: The delays between restarts.
        stop_timeout_s: How long work in flight may take after the stop.
        stall_timeout_s: How long one tick or batch may take; 0: for ever.
        singleton: Whether one node of all runs it, under a lease; a projection always is one.
        settings: The worker's own, as `ctx.settings`.
    """

    name: str
    run: str
    kind: Service | Periodic | Projection
    restart: Literal["always", "on-failure", "never"] = "always"
    max_restarts: int = 10
    window_s: float = 300.0
    exhausted: Literal["stop", "exit"] = "stop"
    backoff: Backoff = Backoff()
    stop_timeout_s: float = 30.0
    stall_timeout_s: float = 0.0
    singleton: bool = False
    settings: Mapping[str, Any] = MappingProxyType({})


class Config(NamedTuple):
    """One whole configuration.

    Attributes:
        path: The file it was read from.
        name: The daemon's name: the stem of the file.
        workers: By name, in the order of the file.
        events: The event log.
    """

    path: Path
    name: str
    daemon: DaemonConfig
    log: LogConfig
    database: DatabaseConfig
    workers: Mapping[str, WorkerSpec]
    events: EventsConfig = EventsConfig()
