"""The database as the daemon and its workers see it: there, or waited for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.database.error_class import ErrorClass, may_be_connection_loss
from supervisor.database.gate import ConnectionMonitor
from supervisor.database.gate_listener import NullObserver
from supervisor.database.gate_state import MonitorState
from supervisor.database.pool import Pool, PoolRetired
from supervisor.database.waiting_pool import WorkerPool
from supervisor.errors import DatabaseUnavailable
from supervisor.journal import log_event

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import DatabaseConfig, Server
    from supervisor.database.error_class import Failure
    from supervisor.database.gate_listener import DatabaseObserver, SessionOwner
    from supervisor.stop_signal import StopSignal
    from supervisor.tasks import BackgroundTasks

# An error can surface a little after the outage that caused it.
_AFTERMATH_S = 5.0
# A server that refuses further connections still serves those that it has.
_SPARES_POOL = {ErrorClass.TOO_MANY_CONNECTIONS, ErrorClass.ACCESS_DENIED}


class Database:
    """One gate and its pool; both are replaced when a reload changes the connection string.

    Attributes:
        gate: The gate in force.
    """

    def __init__(
        self, server: Server, config: DatabaseConfig, listener: DatabaseObserver, *, name: str, clock: Clock, rng: Random,
        tasks: BackgroundTasks,
    ) -> None:  # fmt: skip
        self._name = name
        self._listener = listener
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._pool: Pool | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self.monitor = self.new_monitor(server, config)
        self.monitor.listener = self

    # What supervision asks

    @property
    def is_up(self) -> bool:
        """Whether the database can be used now."""
        return self.monitor.state is MonitorState.UP

    @property
    def exhausted(self) -> Failure | None:
        """Why the pool cannot grow, while it cannot."""
        return self._pool.starved if self._pool is not None else None

    async def wait_until_up(self) -> None:
        """Return once the database can be used."""
        while not self.is_up:
            await self._wait_for_a_move(None)

    async def is_outage_error(self, error: BaseException) -> bool:
        """Whether a worker's error is the doing of an outage, now or just over.

        An error that cannot mean a lost connection is answered at once; any other is a suspicion,
        verified by a statement on the gate's own connection.
        """
        if isinstance(error, (DatabaseUnavailable, PoolRetired)):
            return True
        if not may_be_connection_loss(error):
            return False
        raised_s = self._clock.now_s()
        is_up = await self.monitor.check_now()
        return not is_up or self.monitor.disturbed_at_s > raised_s - _AFTERMATH_S

    def pool_for(self, stop: StopSignal) -> WorkerPool:
        """Return the pool as one run of a worker sees it."""
        return WorkerPool(self, stop)

    # Connections

    async def acquire(self, stop: StopSignal | None) -> tuple[Pool, Any]:
        """Return a connection and the pool to give it back to, however long that takes.

        Raises:
            DatabaseUnavailable: The worker is to stop and the database is away.
        """
        while True:
            pool = await self._usable_pool(stop)
            with contextlib.suppress(PoolRetired):
                return pool, await pool.acquire(stop)

    async def release(self, pool: Pool, connection: Any) -> None:
        """Give a borrowed connection back."""
        await pool.release(connection, limit_s=self.monitor.config.connect_timeout_s)

    async def _usable_pool(self, stop: StopSignal | None) -> Pool:
        while not self.is_up or self._pool is None:
            if stop is not None and stop.is_set:
                raise DatabaseUnavailable("The worker is to stop, and the database is away.")
            await self._wait_for_a_move(stop)
        return self._pool

    def _new_pool(self) -> Pool:
        return Pool(self.monitor, clock=self._clock, rng=self._rng, tasks=self._tasks, on_starved=self._tell_starved)

    def _tell_starved(self, failure: Failure) -> None:
        log_event("pool.starved", reason=failure.reason, error_class=failure.error_class.value, exc=failure.error)
        self._listener.on_status()

    async def _wait_for_a_move(self, stop: StopSignal | None) -> None:
        """Wait until the gate moves or the worker is to stop."""
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(moved)

        def notice() -> None:
            if not moved.done():
                moved.set_result(None)

        if stop is not None:
            stop.add_callback(notice)
        try:
            await moved
        finally:
            self._waiting.discard(moved)
            if stop is not None:
                stop.remove_callback(notice)

    # What the gate says (GateListener)

    def on_down(self, failure: Failure, *, told: bool) -> None:
        """Retire the pool with the outage, then pass it on."""
        if failure.error_class not in _SPARES_POOL:
            self._retire_pool()
        self._listener.on_down(failure, told=told)

    def on_up(self, *, told: bool) -> None:
        """Let everybody go on, then pass it on."""
        self.on_reconnected()
        self._listener.on_up(told=told)

    def on_reconnected(self) -> None:
        """Have a pool of connections to the host that the gate is connected to, and to no other."""
        link = self.monitor.connected
        if self._pool is not None and link is not None and self._pool.endpoint != link.endpoint:
            self._retire_pool()
        if self._pool is None:
            self._pool = self._new_pool()
        self._wake_all()

    def on_suspect_pool(self) -> None:
        """End the pool's connections: the gate's own was found useless, though another could be made."""
        self._retire_pool()

    def on_stable(self) -> None:
        """Pass it on."""
        self._listener.on_stable()

    def on_status(self) -> None:
        """Pass it on."""
        self._listener.on_status()

    def _wake_all(self) -> None:
        for moved in self._waiting:
            if not moved.done():
                moved.set_result(None)

    def _retire_pool(self) -> None:
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

    # The node

    def attach_session(self, resident: SessionOwner) -> None:
        """Let a node live on the connection of the gate in force, from now on and whichever gate that is."""
        gate = self.monitor
        gate.session_owner = resident
        if gate.connected is not None:
            resident.on_connected(gate, gate.connected)

    def detach_session(self, resident: SessionOwner) -> None:
        """Let it live there no more."""
        if self.monitor.session_owner is resident:
            self.monitor.session_owner = None

    # Reload and stop

    def new_monitor(self, server: Server, config: DatabaseConfig) -> ConnectionMonitor:
        """Return a gate for another database, to be proven before `switch`."""
        return ConnectionMonitor(server, config, name=self._name, clock=self._clock, rng=self._rng)

    async def switch_to(self, gate: ConnectionMonitor, *, limit_s: float) -> None:
        """Move over to a gate that has connected; statements in flight on the old one may finish.

        Args:
            gate: The new gate.
            limit_s: How long they may take before they are ended.
        """
        was_up, old_pool = self.is_up, self._pool
        resident, self.monitor.session_owner = self.monitor.session_owner, None
        self.monitor.listener = NullObserver()
        self.monitor, gate.listener = gate, self
        self._pool = self._new_pool()
        if resident is not None:
            self.attach_session(resident)
        self._wake_all()
        if old_pool is not None:
            self._tasks.start(self._drain(old_pool, limit_s), name="pool: drain the old one")
        if not was_up:
            self._listener.on_up(told=True)

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
