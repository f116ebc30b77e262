"""The database as the daemon and its workers see it: there, or waited for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.database.error_class import ErrorClass, is_suspicious
from supervisor.database.gate import Gate
from supervisor.database.gate_listener import Unheard
from supervisor.database.gate_state import GateState
from supervisor.database.pool import Pool, PoolRetired
from supervisor.database.waiting_pool import WaitingPool
from supervisor.errors import DatabaseUnavailable
from supervisor.journal import tell

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import DatabaseConfig, Server
    from supervisor.database.error_class import Failure
    from supervisor.database.gate_listener import OutageListener, Resident
    from supervisor.stop_signal import StopSignal
    from supervisor.tasks import BackgroundTasks

# An error can surface a little after the outage that caused it.
_AFTERMATH_S = 5.0
# A server that refuses further connections still serves those that it has.
_SPARES_POOL = {ErrorClass.CROWDED, ErrorClass.REFUSED}


class Database:
    """One gate and its pool; both are replaced when a reload changes the connection string.

    Attributes:
        gate: The gate in force.
    """

    def __init__(
        self, server: Server, config: DatabaseConfig, listener: OutageListener, *, name: str, clock: Clock, rng: Random,
        tasks: BackgroundTasks,
    ) -> None:  # fmt: skip
        self._name = name
        self._listener = listener
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._pool: Pool | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self.gate = self.gate_for(server, config)
        self.gate.listener = self

    # What supervision asks

    @property
    def is_up(self) -> bool:
        """Whether the database can be used now."""
        return self.gate.state is GateState.UP

    @property
    def starved(self) -> Failure | None:
        """Why the pool cannot grow, while it cannot."""
        return self._pool.starved if self._pool is not None else None

    async def wait_until_up(self) -> None:
        """Return once the database can be used."""
        while not self.is_up:
            await self._wait_for_a_move(None)

    async def explains(self, error: BaseException) -> bool:
        """Whether a worker's error is the doing of an outage, now or just over.

        An error that cannot mean a lost connection is answered at once; any other is a suspicion,
        verified by a statement on the gate's own connection.
        """
        if isinstance(error, (DatabaseUnavailable, PoolRetired)):
            return True
        if not is_suspicious(error):
            return False
        raised_s = self._clock.now_s()
        is_up = await self.gate.verify()
        return not is_up or self.gate.disturbed_at_s > raised_s - _AFTERMATH_S

    def view(self, stop: StopSignal) -> WaitingPool:
        """Return the pool as one run of a worker sees it."""
        return WaitingPool(self, stop)

    # Connections

    async def borrow(self, stop: StopSignal | None) -> tuple[Pool, Any]:
        """Return a connection and the pool to give it back to, however long that takes.

        Raises:
            DatabaseUnavailable: The worker is to stop and the database is away.
        """
        while True:
            pool = await self._usable_pool(stop)
            with contextlib.suppress(PoolRetired):
                return pool, await pool.acquire(stop)

    async def give_back(self, pool: Pool, connection: Any) -> None:
        """Give a borrowed connection back."""
        await pool.release(connection, limit_s=self.gate.config.connect_timeout_s)

    async def _usable_pool(self, stop: StopSignal | None) -> Pool:
        while not self.is_up or self._pool is None:
            if stop is not None and stop.is_set:
                raise DatabaseUnavailable("The worker is to stop, and the database is away.")
            await self._wait_for_a_move(stop)
        return self._pool

    def _new_pool(self) -> Pool:
        return Pool(self.gate, clock=self._clock, rng=self._rng, tasks=self._tasks, on_starved=self._tell_starved)

    def _tell_starved(self, failure: Failure) -> None:
        tell("pool.starved", reason=failure.reason, error_class=failure.error_class.value, exc=failure.error)
        self._listener.progressed()

    async def _wait_for_a_move(self, stop: StopSignal | None) -> None:
        """Wait until the gate moves or the worker is to stop."""
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(moved)

        def notice() -> None:
            if not moved.done():
                moved.set_result(None)

        if stop is not None:
            stop.notify(notice)
        try:
            await moved
        finally:
            self._waiting.discard(moved)
            if stop is not None:
                stop.forget(notice)

    # What the gate says (GateListener)

    def went_down(self, failure: Failure, *, told: bool) -> None:
        """Retire the pool with the outage, then pass it on."""
        if failure.error_class not in _SPARES_POOL:
            self._retire_pool()
        self._listener.went_down(failure, told=told)

    def came_back(self, *, told: bool) -> None:
        """Let everybody go on, then pass it on."""
        self.moved()
        self._listener.came_back(told=told)

    def moved(self) -> None:
        """Have a pool of connections to the host that the gate is connected to, and to no other."""
        link = self.gate.link
        if self._pool is not None and link is not None and self._pool.endpoint != link.endpoint:
            self._retire_pool()
        if self._pool is None:
            self._pool = self._new_pool()
        self._wake_all()

    def distrusted(self) -> None:
        """End the pool's connections: the gate's own was found useless, though another could be made."""
        self._retire_pool()

    def settled(self) -> None:
        """Pass it on."""
        self._listener.settled()

    def progressed(self) -> None:
        """Pass it on."""
        self._listener.progressed()

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
            "max": self.gate.config.pool_max,
            "waiting": pool.waiting if pool else 0,
            "starved": self.starved.reason if self.starved else None,
        }

    # The node

    def house(self, resident: Resident) -> None:
        """Let a node live on the connection of the gate in force, from now on and whichever gate that is."""
        gate = self.gate
        gate.resident = resident
        if gate.link is not None:
            resident.linked(gate, gate.link)

    def unhouse(self, resident: Resident) -> None:
        """Let it live there no more."""
        if self.gate.resident is resident:
            self.gate.resident = None

    # Reload and stop

    def gate_for(self, server: Server, config: DatabaseConfig) -> Gate:
        """Return a gate for another database, to be proven before `switch`."""
        return Gate(server, config, name=self._name, clock=self._clock, rng=self._rng)

    async def switch(self, gate: Gate, *, limit_s: float) -> None:
        """Move over to a gate that has connected; statements in flight on the old one may finish.

        Args:
            gate: The new gate.
            limit_s: How long they may take before they are ended.
        """
        was_up, old_pool = self.is_up, self._pool
        resident, self.gate.resident = self.gate.resident, None
        self.gate.listener = Unheard()
        self.gate, gate.listener = gate, self
        self._pool = self._new_pool()
        if resident is not None:
            self.house(resident)
        self._wake_all()
        if old_pool is not None:
            self._tasks.start(self._drain(old_pool, limit_s), name="pool: drain the old one")
        if not was_up:
            self._listener.came_back(told=True)

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
