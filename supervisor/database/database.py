"""The database as the daemon and its workers see it: there, or waited for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from supervisor.clock import ends_within
from supervisor.config.model import Backoff
from supervisor.database.backoff import delay_s
from supervisor.database.error_class import ErrorClass, failure_of, is_suspicious
from supervisor.database.gate import Gate, Unheard
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
    from supervisor.database.gate import GateListener
    from supervisor.database.stop import StopSignal
    from supervisor.tasks import Tasks

# A connection that could not be opened for the pool is tried again by whoever waits for one.
_AGAIN = Backoff(initial_s=0.1, factor=2.0, max_s=5.0)
# An error can surface a little after the outage that caused it.
_AFTERMATH_S = 5.0
# A server that refuses further connections still serves those that it has.
_SPARES_POOL = {ErrorClass.CROWDED, ErrorClass.REFUSED}


class Database:
    """One gate and its pool; both are replaced when a reload changes the connection string.

    Attributes:
        gate: The gate in force.
        starved: Why the pool cannot grow, while it cannot.
    """

    def __init__(
        self, server: Server, config: DatabaseConfig, listener: GateListener, *, name: str, clock: Clock, rng: Random,
        tasks: Tasks,
    ) -> None:  # fmt: skip
        self._name = name
        self._listener = listener
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._pool: Pool | None = None
        self._opening: asyncio.Task[Exception | None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self.starved: Failure | None = None
        self.gate = self.gate_for(server, config)
        self.gate.listener = self

    # What supervision asks

    @property
    def is_up(self) -> bool:
        """Whether the database can be used now."""
        return self.gate.state is GateState.UP

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
        tries = 0
        while True:
            try:
                pool = await self._usable_pool(stop)
                connection = await pool.acquire()
            except DatabaseUnavailable:
                raise
            except PoolRetired:
                continue
            except Exception as error:  # noqa: BLE001 - no statement has begun: whatever it was, waiting is right
                await self._starve(error, tries, stop)
                tries += 1
                continue
            self.starved = None
            return pool, connection

    async def give_back(self, pool: Pool, connection: Any) -> None:
        """Give a borrowed connection back."""
        await pool.release(connection, limit_s=self.gate.config.connect_timeout_s)

    async def _usable_pool(self, stop: StopSignal | None) -> Pool:
        while not self.is_up:
            if stop is not None and stop.is_set:
                raise DatabaseUnavailable("The worker is to stop, and the database is away.")
            await self._wait_for_a_move(stop)
        if self._pool is None:
            await self._opened()
        if self._pool is None:
            raise PoolRetired("The database was lost while the pool was opened.")
        return self._pool

    async def _opened(self) -> None:
        """Open the pool, once for all who ask meanwhile; raise what kept it from opening."""
        if self._opening is None:
            self._opening = self._tasks.start(self._open(Pool(self.gate)), name="pool: open")
        error = await asyncio.shield(self._opening)
        if error is not None:
            raise error

    async def _open(self, pool: Pool) -> Exception | None:
        opening = asyncio.current_task()
        problem: Exception | None = None
        try:
            await pool.open()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the pool
            problem = error
        if self._opening is not opening:  # an outage or a reload came in between
            pool.terminate()
            return PoolRetired("The database was lost while the pool was opened.")
        self._opening = None
        if problem is None:
            self._pool = pool
        return problem

    async def _starve(self, error: Exception, tries: int, stop: StopSignal | None) -> None:
        """Wait before the next try for a connection.

        53300 here is backpressure, a refused login a changed password: neither is the worker's
        failure, and the connections that stand still serve.
        """
        if stop is not None and stop.is_set:
            raise DatabaseUnavailable("The worker is to stop, and the pool gets no connection.") from error
        gate = self.gate
        failure = failure_of(error, address=gate.address, limit_s=gate.config.connect_timeout_s)
        if is_suspicious(error):
            gate.suspect()
        if self.starved is None:
            tell("pool.starved", reason=failure.reason, error_class=failure.error_class.value, exc=error)
        self.starved = failure
        await self._clock.sleep(0.05 + delay_s(_AGAIN, tries, self._rng.random()))

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
        self._tasks.start(self._warm_up(), name="pool: first connections")
        self._wake_all()
        self._listener.came_back(told=told)

    def settled(self) -> None:
        """Pass it on."""
        self._listener.settled()

    def progressed(self) -> None:
        """Pass it on."""
        self._listener.progressed()

    async def _warm_up(self) -> None:
        """Open pool_min connections before anybody asks; if that fails, whoever asks will see to it."""
        with contextlib.suppress(Exception):
            if self.is_up and self._pool is None:
                await self._opened()

    def _wake_all(self) -> None:
        for moved in self._waiting:
            if not moved.done():
                moved.set_result(None)

    def _retire_pool(self) -> None:
        pool, self._pool, self._opening = self._pool, None, None
        if pool is not None:
            pool.terminate()

    def pool_counts(self) -> dict[str, int | str | None]:
        """Return how many connections are open and idle, and why there are no more if there should be."""
        pool = self._pool
        return {
            "size": pool.size if pool else 0,
            "idle": pool.idle if pool else 0,
            "max": self.gate.config.pool_max,
            "starved": self.starved.reason if self.starved else None,
        }

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
        old_pool, self._pool, self._opening = self._pool, None, None
        self.gate.listener = Unheard()
        self.gate, gate.listener = gate, self
        self.starved = None
        self._wake_all()
        await self._warm_up()
        if old_pool is not None:
            self._tasks.start(self._drain(old_pool, limit_s), name="pool: drain the old one")

    async def close(self, *, limit_s: float) -> None:
        """Close the pool; whatever has not ended after `limit_s` is ended."""
        pool, self._pool, self._opening = self._pool, None, None
        if pool is not None:
            await self._drain(pool, limit_s)

    async def _drain(self, pool: Pool, limit_s: float) -> None:
        draining = self._tasks.start(pool.drain(), name="pool: close")
        if not await ends_within(draining, limit_s, clock=self._clock):
            draining.cancel()
        pool.terminate()
