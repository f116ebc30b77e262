"""The database as the daemon and its workers use it: a monitor and a pool, and waiting while it is unreachable."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.database.error_class import ErrorClass, may_be_connection_loss
from supervisor.database.monitor import ConnectionMonitor
from supervisor.database.monitor_policy import MonitorState
from supervisor.database.pool import Pool, PoolClosed
from supervisor.database.worker_pool import WorkerPool
from supervisor.errors import DatabaseUnavailable
from supervisor.journal import log_event
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import DatabaseConfig, Server
    from supervisor.database.error_class import Failure
    from supervisor.database.monitor import DatabaseObserver, SessionOwner
    from supervisor.stop_signal import StopSignal
    from supervisor.tasks import BackgroundTasks

# An error can surface a little after the outage that caused it.
_LATE_ERRORS_S = 5.0
# A server that refuses further connections still serves those that it has.
_KEEPS_POOL = {ErrorClass.TOO_MANY_CONNECTIONS, ErrorClass.ACCESS_DENIED}


class Database:
    """One connection monitor and its pool; both are replaced when a reload changes the connection string.

    Attributes:
        monitor: The monitor in force.
    """

    def __init__(
        self, server: Server, config: DatabaseConfig, observer: DatabaseObserver, *, name: str, clock: Clock,
        rng: Random, tasks: BackgroundTasks,
    ) -> None:  # fmt: skip
        self._name = name
        self._observer = observer
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._pool: Pool | None = None
        self._waiting: set[Wakeup] = set()
        self.monitor = self.new_monitor(server, config)
        self._put_in_force(self.monitor)

    @property
    def is_up(self) -> bool:
        """Whether the database can be used now."""
        return self.monitor.state is MonitorState.UP

    @property
    def exhausted(self) -> Failure | None:
        """Why the pool cannot grow, while it cannot."""
        return self._pool.exhausted if self._pool is not None else None

    async def wait_until_up(self) -> None:
        """Return once the database can be used."""
        while not self.is_up:
            await self._wait_for_change(None)

    async def is_outage_error(self, error: BaseException) -> bool:
        """Whether an outage, current or just over, explains a worker's error.

        An error that cannot mean a lost connection is answered at once; any other is verified by a statement on the
        monitor's own connection.
        """
        if isinstance(error, (DatabaseUnavailable, PoolClosed)):
            return True
        if not may_be_connection_loss(error):
            return False
        raised_s = self._clock.now_s()
        is_up = await self.monitor.check_now()
        return not is_up or self.monitor.last_loss_s > raised_s - _LATE_ERRORS_S

    def pool_for(self, stop: StopSignal) -> WorkerPool:
        """Return the pool as one run of a worker sees it."""
        return WorkerPool(self, stop)

    async def acquire(self, stop: StopSignal | None) -> tuple[Pool, Any]:
        """Return a connection and the pool to give it back to, however long that takes.

        Raises:
            DatabaseUnavailable: The worker is to stop and the database is away.
        """
        while True:
            pool = await self._usable_pool(stop)
            with contextlib.suppress(PoolClosed):
                return pool, await pool.acquire(stop)

    async def release(self, pool: Pool, connection: Any) -> None:
        """Give a connection back."""
        await pool.release(connection, limit_s=self.monitor.config.connect_timeout_s)

    def note_use(self, error: BaseException | None) -> None:
        """Learn how a worker's use of a connection ended, which may be the first sign of an outage."""
        if error is None:
            self.monitor.had_work = True
        elif may_be_connection_loss(error):
            self.monitor.request_check()

    async def _usable_pool(self, stop: StopSignal | None) -> Pool:
        while not self.is_up or self._pool is None:
            if stop is not None and stop.is_set:
                raise DatabaseUnavailable("The worker is to stop, and the database is unreachable.")
            await self._wait_for_change(stop)
        return self._pool

    def _new_pool(self) -> Pool:
        return Pool(
            self.monitor,
            clock=self._clock,
            rng=self._rng,
            tasks=self._tasks,
            on_exhausted=self._log_exhausted,
            on_capacity=self._observer.on_status,
        )

    def _log_exhausted(self, failure: Failure) -> None:
        log_event("pool.exhausted", reason=failure.reason, error_class=failure.error_class.value, exc=failure.error)
        self._observer.on_status()

    async def _wait_for_change(self, stop: StopSignal | None) -> None:
        """Wait until the monitor changes its state or connection, or the worker is to stop."""
        wakeup = Wakeup(clock=self._clock)
        self._waiting.add(wakeup)
        if stop is not None:
            stop.add_callback(wakeup.wake)
        try:
            await wakeup.wait()
        finally:
            self._waiting.discard(wakeup)
            if stop is not None:
                stop.remove_callback(wakeup.wake)

    def on_down(self, failure: Failure) -> None:
        """Close the pool, unless the server still serves the connections that it has."""
        if failure.error_class not in _KEEPS_POOL:
            self._close_pool()

    def on_reconnected(self) -> None:
        """Have a pool of connections to the host that the monitor is connected to, and to no other."""
        connected = self.monitor.connected
        if self._pool is not None and connected is not None and self._pool.endpoint != connected.endpoint:
            self._close_pool()
        if self._pool is None:
            self._pool = self._new_pool()
        self._wake_all()

    def on_suspect_pool(self) -> None:
        """Close the pool: the monitor's own connection was found useless, though another could be made."""
        self._close_pool()

    def _put_in_force(self, monitor: ConnectionMonitor) -> None:
        monitor.pool_owner, monitor.observer = self, self._observer

    def _wake_all(self) -> None:
        for wakeup in self._waiting:
            wakeup.wake()

    def _close_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def pool_counts(self) -> dict[str, int | str | None]:
        """Return how many connections are open and idle, and why there are no more if there should be."""
        pool = self._pool
        return {
            "size": pool.size if pool else 0,
            "idle": pool.idle if pool else 0,
            "max": self.monitor.config.pool_max,
            "waiting": pool.waiting if pool else 0,
            "starved": self.exhausted.reason if self.exhausted else None,
        }

    def attach_session(self, owner: SessionOwner) -> None:
        """Give a node the connection of the monitor in force as its session, from now on and over a `switch_to`."""
        monitor = self.monitor
        monitor.session_owner = owner
        if monitor.connected is not None:
            owner.on_connected(monitor, monitor.connected)

    def detach_session(self, owner: SessionOwner) -> None:
        """Take the session away from a node; another node's stays."""
        if self.monitor.session_owner is owner:
            self.monitor.session_owner = None

    def new_monitor(self, server: Server, config: DatabaseConfig) -> ConnectionMonitor:
        """Return a monitor of another database, to be connected before `switch_to`."""
        return ConnectionMonitor(server, config, name=self._name, clock=self._clock, rng=self._rng)

    async def switch_to(self, monitor: ConnectionMonitor, *, limit_s: float) -> None:
        """Move over to a monitor that has connected; statements in flight on the old one may finish.

        Args:
            monitor: The new monitor.
            limit_s: How long they may take before they are ended.
        """
        was_up, old_pool = self.is_up, self._pool
        owner, self.monitor.session_owner = self.monitor.session_owner, None
        self.monitor.pool_owner = self.monitor.observer = None
        self.monitor = monitor
        self._put_in_force(monitor)
        self._pool = self._new_pool()
        if owner is not None:
            self.attach_session(owner)
        self._wake_all()
        if old_pool is not None:
            self._tasks.start(self._drain(old_pool, limit_s), name="pool: drain the old one")
        if not was_up:
            self._observer.on_up(announced=True)

    async def close(self, *, limit_s: float) -> None:
        """Close the pool; whatever has not ended after `limit_s` is ended."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await self._drain(pool, limit_s)

    async def _drain(self, pool: Pool, limit_s: float) -> None:
        draining = self._tasks.start(pool.drain(), name="pool: close")
        if not await done_within(draining, limit_s, clock=self._clock):
            draining.cancel()
        pool.terminate()
