"""Reloading: the whole new configuration is proven before anything changes, then only the difference is applied."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.config.diff import diff_configs
from supervisor.config.kinds import needs_node, needs_schema
from supervisor.config.model import Server
from supervisor.daemon.aside import aside
from supervisor.daemon.pruning import prune_if_asked
from supervisor.daemon.status import status_line
from supervisor.errors import ConfigError, ConfigFault, SupervisorError
from supervisor.journal import log_event
from supervisor.workers.handlers import import_handlers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.config.diff import ConfigDiff
    from supervisor.config.model import Config
    from supervisor.daemon.daemon import Daemon
    from supervisor.daemon.leasing import Leasing
    from supervisor.database.monitor import ConnectionMonitor

# systemd 253 sends the SIGHUP first and starts the client then; a Python needs a moment to start.
_CLIENT_COMES_WITHIN_S = 3.0
_READ_LIMIT_S = 10.0


class Outcome(NamedTuple):
    """What a reload came to.

    Attributes:
        is_applied: Whether the new configuration runs; else the old one does, untouched.
        lines: What changed, or everything that is wrong.
    """

    is_applied: bool
    lines: tuple[str, ...]


class Proven(NamedTuple):
    """A new configuration of which everything that can fail has been tried.

    Attributes:
        config: The configuration.
        change: What it changes.
        functions: The function of each worker.
        gate: A gate connected to the new database, when that changes.
        leasing: The node that this daemon becomes, when it is none yet.
    """

    config: Config
    change: ConfigDiff
    functions: Mapping[str, Any]
    gate: ConnectionMonitor | None
    leasing: Leasing | None


class Reloader:
    """Runs one reload at a time; whatever is asked for meanwhile becomes one more.

    Attributes:
        is_running: Whether a reload is under way.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._may_begin = asyncio.Event()
        self._wanted: asyncio.Event = asyncio.Event()
        self._next: asyncio.Future[Outcome] | None = None
        self._latest: asyncio.Future[Outcome] | None = None
        self._latest_began_s = float("-inf")
        self._latest_file: object = None
        self._by_signal = False
        self._latest_by_signal = False
        self.is_running = False

    def begin(self) -> None:
        """Allow reloads: the start is over. One asked for during the start is done now."""
        self._may_begin.set()

    def request(self) -> asyncio.Future[Outcome]:
        """Ask for a reload that begins after this call, and return its outcome to come."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wanted.set()
        return self._next

    def signalled(self) -> None:
        """Ask for a reload because of a SIGHUP."""
        self._by_signal = True
        self.request()

    def join(self) -> asyncio.Future[Outcome]:
        """Ask for a reload on behalf of a client.

        Under Type=notify-reload, systemd sends a SIGHUP and runs the client too. A reload that a SIGHUP
        began just before, from the same file, is the client's own.
        """
        latest = self._latest
        age_s = self._daemon.clock.now_s() - self._latest_began_s
        if (
            latest is not None
            and self._latest_by_signal
            and age_s < _CLIENT_COMES_WITHIN_S
            and self._latest_file == self._file()
        ):
            self._latest_by_signal = False  # a second client wants one of its own
            return latest
        return self.request()

    async def run(self) -> None:
        """Serve the requests, for ever."""
        await self._may_begin.wait()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            outcome, self._next = self._next, None
            if outcome is None or self._daemon.is_stopping:
                continue
            self._latest, self._latest_began_s = outcome, self._daemon.clock.now_s()
            self._latest_file = self._file()
            self._latest_by_signal, self._by_signal = self._by_signal, False
            self.is_running = True
            try:
                result = await self._reload()
            finally:
                self.is_running = False
            if not outcome.done():
                outcome.set_result(result)

    async def preview(self) -> Outcome:
        """Return what a reload would change, without changing anything."""
        from supervisor.config.diff_text import diff_text  # noqa: PLC0415 - only for --dry-run

        try:
            config = await self._read()
            change = diff_configs(self._daemon.config, config)
            _refuse(change)
            await self._load(config)
        except SupervisorError as error:
            return Outcome(False, tuple(str(error).splitlines()))
        return Outcome(True, tuple(diff_text(self._daemon.config, config)))

    async def _reload(self) -> Outcome:
        daemon = self._daemon
        began_s = daemon.clock.now_s()
        daemon.notifier.reloading()
        daemon.pulse.beat()
        log_event("reload.started")
        try:
            proven = await self._prove()
            await self._apply(proven)
        except (SupervisorError, TimeoutError) as error:
            outcome = self._reject(str(error), None)
        except Exception as error:  # noqa: BLE001 - whatever it was, the old configuration runs on
            outcome = self._reject(f"a fault of the daemon itself: {type(error).__name__}: {error}", error)
        else:
            outcome = self._accept(proven.change, daemon.clock.now_s() - began_s)
        finally:
            # Without this READY systemd would wait for ever (systemd #37515), but STOPPING is final.
            if not daemon.is_stopping:
                daemon.on_status()
                daemon.notifier.ready(status_line(daemon))
            if daemon.notifier.has_pending:
                daemon.pulse.rouse()
        return outcome

    async def _prove(self) -> Proven:
        daemon = self._daemon
        config = await self._read()
        change = diff_configs(daemon.config, config)
        _refuse(change)
        functions = await self._load(config)
        gate = await self._prove_database(config) if change.database_changed else None
        try:
            leasing = await self._prove_leases(config, gate)
        except BaseException:
            if gate is not None:
                gate.close()
            raise
        return Proven(config, change, functions, gate, leasing)

    async def _read(self) -> Config:
        daemon = self._daemon
        return await aside(
            daemon.read_config, what="reading the configuration", limit_s=_READ_LIMIT_S, clock=daemon.clock
        )

    async def _load(self, config: Config) -> Mapping[str, Any]:
        return await import_handlers(
            config.workers.values(),
            python_path=config.daemon.python_path,
            source=str(config.path),
            clock=self._daemon.clock,
        )

    async def _prove_database(self, config: Config) -> ConnectionMonitor:
        database = self._daemon.database
        assert database is not None  # noqa: S101 - reloads begin after the start
        target = config.database.target
        gate = database.new_monitor(target if isinstance(target, Server) else database.monitor.server, config.database)
        failure = await gate.connect_once()
        if failure is not None:
            raise ConfigError(ConfigFault(str(config.path), "database.dsn", failure.reason))
        return gate

    async def _prove_leases(self, config: Config, gate: ConnectionMonitor | None) -> Leasing | None:
        """Have the schema, and the means to hold leases, before anything changes; return a node if one is missing."""
        daemon = self._daemon
        database, is_node = daemon.database, needs_node(config)
        assert database is not None  # noqa: S101 - reloads begin after the start
        # While the start still connects, it sees to all this itself.
        is_first = is_node and daemon.leasing is None and daemon.supervisor is not None
        if gate is None and not is_first:
            return None
        from supervisor.daemon.proof import prove_leases, prove_schema  # noqa: PLC0415 - few reloads need it

        await prove_schema(
            gate or database.monitor,
            config.database,
            is_needed=needs_schema(config),
            clock=daemon.clock,
            rng=daemon.rng,
        )
        if gate is not None and is_node:
            await prove_leases(gate, clock=daemon.clock)
        if not is_first:
            return None
        from supervisor.daemon.leasing import Leasing  # noqa: PLC0415 - most daemons have no leases

        leasing = Leasing(daemon, database)
        if gate is None:
            await leasing.try_to_begin()
        return leasing

    async def _apply(self, proven: Proven) -> None:
        """Put a proven configuration in force; nothing here can fail any more."""
        daemon, config, change = self._daemon, proven.config, proven.change
        database, supervisor = daemon.database, daemon.supervisor
        assert database is not None  # noqa: S101 - reloads begin after the start
        database.monitor.config = config.database
        if proven.gate is not None:
            await self._move(proven.gate, config)
        if proven.leasing is not None:
            daemon.leasing = proven.leasing
            if proven.gate is not None:
                from supervisor.daemon.leasing import JOINING  # noqa: PLC0415 - as above

                daemon.tasks.start(proven.leasing.begin(), name=JOINING, critical=True)
        if change.log_changed:
            daemon.journal.set_level(config.log.level)
            daemon.journal.set_format(config.log.format)
        if daemon.blocked_loop is not None:
            daemon.blocked_loop.set_limit(config.daemon.stall_warning_s)
        daemon.config, daemon.functions = config, proven.functions
        if daemon.leasing is not None:
            daemon.leasing.renew((*change.added, *change.changed))
        if supervisor is not None:  # None while a daemon with ready = "started" still connects
            await supervisor.apply(change, workers=config.workers, handlers=proven.functions)
            if not needs_node(config):
                await self._leave()
            prune_if_asked(daemon)

    async def _move(self, gate: ConnectionMonitor, config: Config) -> None:
        """Move over to another connection; leases are given back on the old one, and stood for anew on the new one."""
        daemon = self._daemon
        database, leasing = daemon.database, daemon.leasing
        assert database is not None  # noqa: S101 - reloads begin after the start
        if leasing is not None and daemon.supervisor is not None:
            await daemon.supervisor.stop_leased_workers("the database connection changes")
            await leasing.let_go()
            leasing.move()
            if not needs_node(config):
                await self._leave()  # the new database may have no schema
        await database.switch_to(gate, limit_s=config.daemon.stop_timeout_s)
        daemon.run_gate(gate)

    async def _leave(self) -> None:
        """Be no node any more: no worker needs a lease."""
        daemon = self._daemon
        leasing, daemon.leasing = daemon.leasing, None
        if leasing is not None:
            await leasing.let_go()
            await leasing.leave()

    def _accept(self, change: ConfigDiff, took_s: float) -> Outcome:
        said = {"added": change.added, "changed": change.changed, "removed": change.removed}
        fields: dict[str, Any] = {key: ", ".join(names) for key, names in said.items() if names}
        if change.database_changed:
            fields["changed"] = ", ".join(filter(None, (fields.get("changed"), "the database connection")))
        log_event("reload.applied", took_s=round(took_s, 3), **fields)
        self._daemon.refused_reload = None
        lines = tuple(f"{key}: {names}" for key, names in fields.items()) or ("Nothing has changed.",)
        self._daemon.last_reload = f"applied: {'; '.join(lines)}"
        return Outcome(True, lines)

    def _reject(self, faults: str, error: Exception | None) -> Outcome:
        log_event("reload.rejected", faults=faults, exc=error)
        lines = tuple(faults.splitlines())
        self._daemon.refused_reload = lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"
        self._daemon.last_reload = f"rejected: {self._daemon.refused_reload}"
        return Outcome(False, lines)

    def _file(self) -> object:
        """Return what changes when the file does."""
        try:
            stat = self._daemon.config.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _refuse(change: ConfigDiff) -> None:
    if change.needs_restart:
        raise ConfigError(*change.needs_restart)
