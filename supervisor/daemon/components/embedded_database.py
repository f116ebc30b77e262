"""The embedded PostgreSQL as a component: its lock, its server, and the server's restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.model import Server
from supervisor.daemon.component import Component
from supervisor.database.embedded.locks import GIVE_UP_S, StateLock
from supervisor.database.embedded.process import find_programs
from supervisor.database.embedded.restart import supervise
from supervisor.database.embedded.server import EmbeddedServer, lock_folder
from supervisor.errors import ConfigError, ConfigFault, EmbeddedDatabaseMisconfigured
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import Config, EmbeddedStore
    from supervisor.database.embedded.locks import Holder
    from supervisor.tasks import BackgroundTasks

# The monitor's connection, one for the validation of a reload, an administrator's and the reserved ones.
_EXTRA_CONNECTIONS = 20
_SHUTDOWN_TIMEOUT_S = 10.0
# An immediate shutdown, and the end of what is left, come after the timeout.
_STOP_TIMEOUT_S = _SHUTDOWN_TIMEOUT_S + 10.0
_SUPERVISE_TASK = "embedded PostgreSQL"


class EmbeddedDatabaseComponent(Component):
    """Starts a PostgreSQL of the daemon's own; a reload cannot change it."""

    name = "embedded PostgreSQL"
    stop_timeout_s = _STOP_TIMEOUT_S

    def __init__(
        self, config: Config, target: EmbeddedStore, *, clock: Clock, tasks: BackgroundTasks,
        on_step: Callable[[str], object],
    ) -> None:  # fmt: skip
        self._config = config
        self._target = target
        self._clock = clock
        self._tasks = tasks
        self._on_step = on_step
        self._lock: StateLock | None = None
        self._server: EmbeddedServer | None = None

    @property
    def server(self) -> Server:
        """Where it is, once it has started."""
        assert self._server is not None  # noqa: S101 - the components after this one ask
        return Server(self._server.dsn, source="the embedded store")

    async def start(self) -> None:
        """Take the lock of its folder and start the server.

        Raises:
            ConfigError: It cannot work until an operator changes something.
            EmbeddedDatabaseLocked: Another process kept the lock.
            EmbeddedDatabaseFailed: It cannot be started at the moment; the message says why.
        """
        key = "database.dsn"
        try:
            find_programs()
            if self._target.path is None:
                key = "supervisor.state_dir"  # where a folder is that the dsn does not name
            await self._take_lock(StateLock(lock_folder(self._target, self._config.daemon.state_dir)))
            await self._start_server()
        except EmbeddedDatabaseMisconfigured as error:
            raise ConfigError(ConfigFault(str(self._config.path), key, str(error))) from error

    async def stop(self, deadline_s: float) -> None:
        """Shut the server down, then release the lock."""
        self._tasks.cancel(_SUPERVISE_TASK)
        try:
            if self._server is not None:
                began_s = self._clock.now_s()
                await self._server.stop(min(_SHUTDOWN_TIMEOUT_S, max(0.0, deadline_s - began_s)))
                if self._server.starts:
                    log_event("store.stopped", took_s=round(self._clock.now_s() - began_s, 3))
        finally:
            if self._lock is not None:
                self._lock.release()

    async def _start_server(self) -> None:
        target, state_dir = self._target, self._config.daemon.state_dir
        self._on_step("Starting the embedded PostgreSQL")
        log_event("store.starting", path=str(target.path or state_dir))
        began_s = self._clock.now_s()
        max_connections = self._config.database.pool_max + _EXTRA_CONNECTIONS
        self._server = EmbeddedServer(target, state_dir, clock=self._clock, max_connections=max_connections)
        await self._server.start()
        log_event("store.started", path=str(self._server.path), took_s=round(self._clock.now_s() - began_s, 3))
        self._tasks.start(supervise(self._server, clock=self._clock), name=_SUPERVISE_TASK)

    async def _take_lock(self, lock: StateLock) -> None:
        began_s = self._clock.now_s()
        self._lock = lock

        def on_waiting(holder: Holder, waited_s: float) -> None:
            self._on_step(f"Waiting for the embedded store, which {holder} holds")
            log_event(
                "store.locked",
                path=str(lock.directory),
                holder_pid=holder.pid,
                holder_host=holder.host,
                holder_since=holder.since,
                waited_s=round(waited_s, 1),
            )

        # A predecessor may drain for as long as its own stop_timeout, which is most likely ours.
        give_up_s = max(GIVE_UP_S, 2 * self._config.daemon.stop_timeout_s)
        was_taken = lock.try_acquire()
        if was_taken is None:
            return
        await lock.acquire(clock=self._clock, give_up_s=give_up_s, on_waiting=on_waiting)
        log_event("store.unlocked", path=str(lock.directory), waited_s=round(self._clock.now_s() - began_s, 3))
