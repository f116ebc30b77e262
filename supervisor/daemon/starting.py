"""The start, in its order: import, store, control, connect, schema, join the other nodes, workers, READY."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from supervisor.config.kinds import needs_node, needs_schema
from supervisor.config.model import EmbeddedStore, Server
from supervisor.daemon.control import ControlServer
from supervisor.daemon.handler import answer
from supervisor.daemon.pruning import prune_if_asked
from supervisor.daemon.status import status_line
from supervisor.database.database import Database
from supervisor.database.schema.migrate import ensure_schema
from supervisor.journal import log_event
from supervisor.runtime import Runtime
from supervisor.supervision.supervisor import Supervisor
from supervisor.workers.handlers import import_handlers
from supervisor.workers.kinds import work_factory

if TYPE_CHECKING:
    from supervisor.daemon.daemon import Daemon
    from supervisor.daemon.leasing import Leasing


class Start:
    """Brings the parts of the daemon up, one after the other; any error ends the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def run(self) -> None:
        """Start everything and say READY."""
        daemon = self._daemon
        config = daemon.config
        self._enter("Importing the workers")
        daemon.functions = await import_handlers(
            config.workers.values(),
            python_path=config.daemon.python_path,
            source=str(config.path),
            clock=daemon.clock,
        )
        gc.enable()  # put off by the command line
        server = await self._server()
        control = ControlServer(config.daemon.control, lambda request: answer(daemon, request))
        await control.open()
        daemon.control = control
        self._enter("Connecting")
        if config.daemon.ready == "started":
            self._say_ready()
        database = await self._connect(server)
        self._enter("Looking at the SQL schema")
        await self._prepare_schema(database)
        if needs_node(daemon.config):
            self._enter("Joining the other nodes")
            await self._join(database)
        self._enter("Starting the workers")
        self._start_workers()
        await self._finish()

    async def _server(self) -> Server:
        target = self._daemon.config.database.target
        match target:
            case Server():
                return target
            case EmbeddedStore():
                from supervisor.daemon.store import open_store  # noqa: PLC0415 - only for the embedded store

                return await open_store(self._daemon, target, self._enter)

    async def _connect(self, server: Server) -> Database:
        daemon = self._daemon
        database = Database(
            server, daemon.config.database, daemon, name=daemon.config.name, clock=daemon.clock, rng=daemon.rng,
            tasks=daemon.tasks,
        )  # fmt: skip
        daemon.database = database
        daemon.run_gate(database.monitor)
        if daemon.config.daemon.ready == "started":
            daemon.reloader.begin()  # a wrong dsn can be mended without a restart
        await database.wait_until_up()
        return database

    async def _prepare_schema(self, database: Database) -> None:
        daemon = self._daemon
        config = daemon.config
        await ensure_schema(
            database, mode=config.database.migrate, is_needed=needs_schema(config), clock=daemon.clock, rng=daemon.rng
        )

    async def _join(self, database: Database) -> None:
        from supervisor.daemon.leasing import Leasing  # noqa: PLC0415 - most daemons have no leases

        self._daemon.leasing = leasing = Leasing(self._daemon, database)
        await leasing.begin()

    def _start_workers(self) -> None:
        daemon = self._daemon
        database = daemon.database
        assert database is not None  # noqa: S101 - connected just before
        runtime = Runtime(
            clock=daemon.clock, rng=daemon.rng, tasks=daemon.tasks, notifier=daemon.notifier, journal=daemon.journal
        )
        daemon.supervisor = Supervisor(
            work_factory=work_factory(runtime=runtime, database=database, cluster=self._leasing),
            database=database,
            runtime=runtime,
            on_exhausted=daemon.on_exhausted,
            on_lease_overrun=daemon.on_outlived,
        )
        daemon.supervisor.start(daemon.config.workers.values(), daemon.functions)

    def _leasing(self) -> Leasing:
        leasing = self._daemon.leasing
        assert leasing is not None  # noqa: S101 - made before the first worker that needs a lease
        return leasing

    async def _finish(self) -> None:
        daemon = self._daemon
        prune_if_asked(daemon)
        await daemon.clock.sleep(0)  # the workers begin
        # What stands now stands for good: the collector need not look at it again, ten thousand workers of it.
        gc.freeze()
        daemon.is_ready = True
        if daemon.config.daemon.ready == "connected":
            self._say_ready()
        daemon.on_status()
        daemon.reloader.begin()

    def _say_ready(self) -> None:
        daemon = self._daemon
        daemon.retake_signals()
        daemon.notifier.ready(status_line(daemon))
        if daemon.notifier.has_pending:
            daemon.pulse.rouse()
        took_s = round(daemon.clock.now_s() - daemon.started_s, 3)
        log_event("daemon.ready", took_s=took_s, **daemon.counts())

    def _enter(self, phase: str) -> None:
        self._daemon.phase = phase
        self._daemon.on_status()
