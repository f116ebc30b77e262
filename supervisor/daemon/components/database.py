"""The database connection and the SQL schema, as components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.diff import diff_configs
from supervisor.config.kinds import needs_schema
from supervisor.config.model import Server
from supervisor.daemon.component import Component, Prepared
from supervisor.database.connect import ping
from supervisor.database.database import Database
from supervisor.database.error_class import CONNECTION_ERRORS
from supervisor.database.schema.migrate import ensure_schema, log_absent, log_migrated, migrate
from supervisor.errors import ConfigError, ConfigFault, DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from supervisor.config.model import Config, DatabaseConfig
    from supervisor.database.monitor import ConnectionMonitor, DatabaseObserver
    from supervisor.runtime import Runtime

# Connections are idle by then; closing them takes a millisecond unless the peer hangs.
_CLOSE_TIMEOUT_S = 1.0
_STOP_TIMEOUT_S = _CLOSE_TIMEOUT_S + 10.0
_MONITOR_TASK = "connection monitor"


class DatabaseComponent(Component):
    """Owns the connection monitor and the pool; a reload may replace both.

    Args:
        config: The configuration in force.
        runtime: Services.
        server: Returns where the database is; asked once, at the start.
        observer: Is called when the database goes down and comes back.
        before_switch: Releases what depends on the connection in force, before a reload with a new configuration
            replaces the connection.
        on_step: Shows what the start does.

    Attributes:
        candidate: A monitor that has connected to the database of a new configuration, while that is validated.
    """

    name = "database"
    stop_timeout_s = _STOP_TIMEOUT_S

    def __init__(
        self, config: Config, *, runtime: Runtime, server: Callable[[], Server], observer: DatabaseObserver,
        before_switch: Callable[[Config], Awaitable[None]], on_step: Callable[[str], object],
    ) -> None:  # fmt: skip
        self.candidate: ConnectionMonitor | None = None
        self._config = config
        self._runtime = runtime
        self._server = server
        self._observer = observer
        self._before_switch = before_switch
        self._on_step = on_step
        self._database: Database | None = None

    @property
    def current(self) -> Database | None:
        """The database; None: it has not been started."""
        return self._database

    @property
    def database(self) -> Database:
        """The database, for what starts after it."""
        assert self._database is not None  # noqa: S101 - the components after this one ask
        return self._database

    async def start(self) -> None:
        """Start to connect; the first connection is not waited for."""
        self._on_step("Connecting")
        runtime = self._runtime
        self._database = Database(
            self._server(), self._config.database, self._observer, name=self._config.name,
            clock=runtime.clock, rng=runtime.rng, tasks=runtime.tasks,
        )  # fmt: skip
        self._start_monitor(self._database.monitor)

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Connect to another database, when the configuration names one.

        Raises:
            ConfigError: It cannot be connected to.
        """
        without_workers = diff_configs(old._replace(workers={}), new._replace(workers={}))
        if not without_workers.database_changed:
            return Prepared(apply=lambda: self._update_policy(new), is_empty=not without_workers.policy_changed)
        monitor = self._new_monitor(new.database)
        try:
            await _connect(monitor, new)
        except BaseException:
            monitor.close()
            raise
        self.candidate = monitor

        async def apply() -> None:
            self.candidate = None
            await self._switch(monitor, new)

        async def discard() -> None:
            self.candidate = None
            monitor.close()

        return Prepared(apply=apply, discard=discard, changes={"changed": "the database connection"})

    def in_force(self, config: Config) -> Config:
        """Return `config` with the `[database]` in force."""
        return config._replace(database=self._config.database)

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - the pool's own limit is shorter
        """Close the pool and the monitor's connection."""
        if self._database is not None:
            await self._database.close(limit_s=_CLOSE_TIMEOUT_S)
        self._runtime.tasks.cancel(_MONITOR_TASK)

    def is_healthy(self, now_s: float) -> bool:
        """Whether the connection monitor makes progress."""
        return self._database is None or not self._database.monitor.is_stuck(now_s)

    def degraded(self) -> str | None:
        """Return why the pool cannot give a connection, while it cannot."""
        exhausted = self._database.exhausted if self._database is not None else None
        return f"the pool has no connection left to give: {exhausted.reason}" if exhausted is not None else None

    def status(self) -> Mapping[str, object]:
        """Return what is known of the connection."""
        if self._database is None:
            return {"database": {"state": "absent"}}
        return {"database": _database_row(self._database, self._runtime.clock.now_s())}

    async def _update_policy(self, new: Config) -> None:
        self.database.monitor.config = new.database
        self._config = new

    def _new_monitor(self, config: DatabaseConfig) -> ConnectionMonitor:
        target = config.target
        database = self.database
        return database.new_monitor(target if isinstance(target, Server) else database.monitor.server, config)

    async def _switch(self, monitor: ConnectionMonitor, new: Config) -> None:
        """Move to a monitor that has connected; statements in flight on the old connections may finish.

        Raises:
            DatabaseUnavailable: Its connection was lost meanwhile; the old one is still in force.
        """
        try:
            await _check(monitor)
            await self._before_switch(new)
            await self.database.switch_to(monitor, limit_s=new.daemon.stop_timeout_s)
        except BaseException:
            if self.database.monitor is not monitor:
                monitor.close()
            raise
        self._config = new
        self._start_monitor(monitor)

    def _start_monitor(self, monitor: ConnectionMonitor) -> None:
        """Run a monitor, in the place of the one before."""
        self._runtime.tasks.cancel(_MONITOR_TASK)
        self._runtime.tasks.start(monitor.run(), name=_MONITOR_TASK, critical=True)


async def _connect(monitor: ConnectionMonitor, config: Config) -> None:
    failure = await monitor.connect_once()
    if failure is not None:
        raise ConfigError(ConfigFault(str(config.path), "database.dsn", failure.reason))


async def _check(monitor: ConnectionMonitor) -> None:
    connected = monitor.connected
    if connected is None:
        raise DatabaseUnavailable("the new database is unreachable")
    async with monitor.lock:
        failure = await ping(connected.connection, connected.endpoint, monitor.connector)
    if failure is not None:
        raise DatabaseUnavailable(f"the new database was lost before it was in force: {failure.reason}")


def _database_row(database: Database, now_s: float) -> dict[str, object]:
    monitor = database.monitor
    return {
        "state": monitor.state.value,
        "dsn": str(monitor.server.dsn),
        "address": monitor.address,
        "since_s": round(now_s - monitor.state_since_s, 1),
        "reason": monitor.failure.reason if monitor.failure and not database.is_up else None,
        "attempts": sum(monitor.outage.failures.values()) if monitor.outage else 0,
        "next_try_s": round(max(0.0, monitor.next_try_at_s - now_s), 1) if monitor.next_try_at_s is not None else None,
        "pool": database.pool_counts(),
    }


class SchemaComponent(Component):
    """Creates or upgrades the SQL schema after the first connection, and when a reload needs it."""

    name = "SQL schema"

    def __init__(
        self, config: Config, *, runtime: Runtime, database: DatabaseComponent, on_step: Callable[[str], object]
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._database = database
        self._on_step = on_step
        self._has_started = False

    async def start(self) -> None:
        """Wait for the first connection, then ensure the schema.

        A reload during the wait puts its configuration in force for the next try.

        Raises:
            SupervisorError: A worker needs the schema, and it cannot be had.
        """
        database = self._database.database
        await database.wait_until_up()
        self._on_step("Looking at the SQL schema")
        await ensure_schema(
            database, mode=lambda: self._config.database.migrate, is_needed=lambda: needs_schema(self._config),
            clock=self._runtime.clock, rng=self._runtime.rng,
        )  # fmt: skip
        self._has_started = True

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Ensure the schema where the new configuration needs it: a migration is not undone by a refused reload."""
        candidate = self._database.candidate
        # Before its own start has ended, the start does this.
        is_first = self._has_started and needs_schema(new) and not needs_schema(old)
        if candidate is not None or is_first:
            await self._ensure(candidate or self._database.database.monitor, new)

        async def apply() -> None:
            self._config = new

        return Prepared(apply=apply, is_empty=True)

    async def _ensure(self, monitor: ConnectionMonitor, new: Config) -> None:
        """Have the schema behind a monitor that has connected.

        Raises:
            SupervisorError: It cannot be had, and a worker needs it.
        """
        if monitor.connected is None:
            raise DatabaseUnavailable("the database is unreachable, so that the SQL schema cannot be checked")
        try:
            connection = await monitor.connector.connect(monitor.connected.endpoint)
        except CONNECTION_ERRORS as error:
            raise DatabaseUnavailable(f"the SQL schema could not be checked: {error}") from error
        clock = self._runtime.clock
        began_s = clock.now_s()
        try:
            result = await migrate(connection, mode=new.database.migrate, clock=clock, rng=self._runtime.rng)
        except (DatabaseAccessDenied, SchemaIncompatible) as error:
            if needs_schema(new):
                raise
            log_absent(error)
        else:
            log_migrated(result, took_s=clock.now_s() - began_s)
        finally:
            connection.terminate()
