"""The pooled connections of one uninterrupted time with one database."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.backoff import Backoff, delay_s
from supervisor.database.error_class import connect_failure, may_be_connection_loss
from supervisor.database.lending import Lending
from supervisor.database.lent_connection import ProxyOwner, unwrap, wrap
from supervisor.errors import DatabaseUnavailable, SupervisorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.database.error_class import Failure
    from supervisor.database.gate import ConnectionMonitor
    from supervisor.stop_signal import StopSignal
    from supervisor.tasks import BackgroundTasks

_AGAIN = Backoff(initial_s=0.1, factor=2.0, max_s=5.0)
_AT_LEAST_S = 0.05
# An outage would have been found by then, and would have retired the pool.
_SURELY_NO_OUTAGE_S = 15.0
# As asyncpg's own pool: an idle connection above pool_min is closed after five minutes.
_IDLE_LIMIT_S = 300.0
_LOOK_EVERY_S = 10.0
_FORGOTTEN_AFTER_S = 60.0
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PoolRetired(SupervisorError):
    """The pool ended while somebody waited for a connection of it; there is another one, or will be."""


class Pool:
    """Connections to the host that the gate has proven; retired as a whole when an outage ends it.

    It is not asyncpg's, because there everybody who waits dials: ten thousand workers before a server
    that takes no further connections would dial ten thousand times. Here nobody dials but the pool
    itself, and after a failure one dial at a time with growing delays, whoever waits; and who waits for
    a pool that is retired moves on at once instead of waiting for its borrowers.

    Attributes:
        endpoint: The host of its connections.
        is_retired: Whether it has ended.
        starved: Why it cannot grow, while it cannot.
    """

    def __init__(
        self,
        gate: ConnectionMonitor,
        *,
        clock: Clock,
        rng: Random,
        tasks: BackgroundTasks,
        on_starved: Callable[[Failure], None],
    ) -> None:
        assert gate.connected is not None  # noqa: S101 - a pool is made when the gate has connected
        self.endpoint = gate.connected.endpoint
        self.is_retired = False
        self.starved: Failure | None = None
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._on_starved = on_starved
        self._open: set[asyncpg.Connection] = set()
        self._siblings = ProxyOwner(self._open)
        # The most recently used is the last; each with the moment since when nobody uses it.
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._waiting: OrderedDict[asyncio.Future[asyncpg.Connection], StopSignal | None] = OrderedDict()
        self._dials: set[asyncio.Task[None]] = set()
        self._failed_dials = 0
        self._hungry_since_s = self._starved_at_s = float("-inf")
        self._emptied: asyncio.Event | None = None
        self._lending = Lending(clock=clock)
        self._keeper = tasks.start(self._keep(), name="pool: keep")
        self._grow()

    # Borrowing

    async def acquire(self, stop: StopSignal | None = None) -> Any:
        """Return a connection, however long that takes.

        Raises:
            PoolRetired: The pool has ended.
            DatabaseUnavailable: The borrower is to stop, and the pool has no connection and gets none.
        """
        while not self.is_retired:
            connection = self._idle.pop()[0] if self._idle else await self._wait(stop)
            if not connection.is_closed():
                self._lending.lent(connection)
                return wrap(connection, self._siblings)
        raise PoolRetired

    async def release(self, lent: Any, *, limit_s: float) -> None:
        """Take a connection back; what goes wrong with it then costs the connection and no more."""
        connection = unwrap(lent)
        if connection is not None:
            self._lending.is_back(connection)
        if connection is None or connection.is_closed():
            return
        if self.is_retired:
            await self._part(connection)
            return
        try:
            await connection.reset(timeout=limit_s)
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, _LOST):
                raise
            self._gate.request_check()
        else:
            self._hand_on(connection)

    async def _wait(self, stop: StopSignal | None) -> asyncpg.Connection:
        waiter: asyncio.Future[asyncpg.Connection] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = stop

        def notice() -> None:
            self._turn_away(waiter, stop)

        if stop is not None:
            stop.add_callback(notice)
        try:
            self._grow()
            notice()
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_on(waiter.result())  # it came and the borrower went, in the same turn of the loop
            raise
        finally:
            self._waiting.pop(waiter, None)
            if stop is not None:
                stop.remove_callback(notice)

    def _hand_on(self, connection: asyncpg.Connection) -> None:
        """Give a connection to whoever has waited longest."""
        if self.is_retired:
            connection.terminate()
            return
        if self._lending.moves():
            self._sated()
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append((connection, self._clock.now_s()))

    def _turn_away(self, waiter: asyncio.Future[asyncpg.Connection], stop: StopSignal | None) -> None:
        """Let go of a borrower that is to stop, if all it could do is wait for the database."""
        is_dry = not self._open and (self._failed_dials or self._gate.connected is None)
        if is_dry and stop is not None and stop.is_set and not waiter.done():
            waiter.set_exception(DatabaseUnavailable("The worker is to stop, and the pool gets no connection."))

    def _turn_all_away(self) -> None:
        for waiter, stop in self._waiting.items():
            self._turn_away(waiter, stop)

    # Growing and shrinking

    def _grow(self) -> None:
        """Dial for those who wait, and for `pool_min`."""
        config = self._gate.config
        if self.is_retired:
            return
        room = config.pool_max - len(self._open)
        wanted = max(len(self._waiting), config.pool_min - len(self._open))
        # After a failure one dials for all.
        allowed = min(wanted, 1 if self._failed_dials else room, room)
        for _ in range(allowed - len(self._dials)):
            dial = self._tasks.start(self._dial(), name="pool: connect")
            self._dials.add(dial)
            dial.add_done_callback(self._dialled)

    async def _dial(self) -> None:
        if self._failed_dials:
            await self._clock.sleep(_AT_LEAST_S + delay_s(_AGAIN, self._failed_dials - 1, self._rng.random()))
        await self._gate.wait_until_linked()
        began_after = self._starved_at_s
        try:
            connection = await self._gate.connector.connect(self.endpoint)
        except Exception as error:  # noqa: BLE001 - no statement has begun: whatever it was, waiting is right
            self._starve(error)
            return
        # Halved, not forgotten: one lucky dial among refusals does not let loose everybody else's.
        self._failed_dials //= 2
        if began_after == self._starved_at_s:
            self._sated()  # not one of several at once, of which others failed
        self._open.add(connection)
        connection.add_termination_listener(lambda _: self._forget(connection))
        self._hand_on(connection)

    def _dialled(self, dial: asyncio.Task[None]) -> None:
        self._dials.discard(dial)
        if not dial.cancelled():
            self._grow()

    def _starve(self, error: Exception) -> None:
        """Note that there is no further connection to be had.

        53300 here is backpressure, a refused login a changed password: neither is a worker's failure,
        and the connections that stand still serve.
        """
        gate = self._gate
        failure = connect_failure(error, address=self.endpoint.address, limit_s=gate.config.connect_timeout_s)
        self._starved_at_s = self._clock.now_s()
        if not self._failed_dials:
            self._hungry_since_s = self._starved_at_s
        self._failed_dials += 1
        if may_be_connection_loss(error):
            gate.request_check()  # it finds out whether this is an outage, which would retire the pool
        if not may_be_connection_loss(error) or self._starved_at_s >= self._hungry_since_s + _SURELY_NO_OUTAGE_S:
            is_news, self.starved = self.starved is None, failure
            if is_news:
                self._on_starved(failure)
        self._turn_all_away()

    def _sated(self) -> None:
        if self.starved is not None:
            self.starved = None
            self._gate.listener.on_status()

    def _forget(self, connection: asyncpg.Connection) -> None:
        self._open.discard(connection)
        self._lending.is_back(connection)
        self._idle = [(other, since_s) for other, since_s in self._idle if other is not connection]
        if self._emptied is not None and not self._open:
            self._emptied.set()
        self._turn_all_away()
        self._grow()

    async def _keep(self) -> None:
        """Close what has been idle for long, and look after those who wait in vain."""
        while True:
            await self._clock.sleep(_LOOK_EVERY_S)
            # One at a time: while a peer takes its farewell, others may be borrowed.
            while (stale := self._take_stale()) is not None:
                await self._part(stale)
                self._forget(stale)  # asyncpg tells of its end only in the loop's next turn
            self._look_at_hunger()

    def _take_stale(self) -> asyncpg.Connection | None:
        """Take out the connection that nobody has used for longest, if that is too long and `pool_min` stay."""
        if not self._idle or len(self._open) <= self._gate.config.pool_min:
            return None
        connection, since_s = self._idle[0]
        if self._clock.now_s() - since_s < _IDLE_LIMIT_S:
            return None
        del self._idle[0]
        return connection

    def _look_at_hunger(self) -> None:
        """Notice a hoard, and forget an old hunger."""
        if self._lending.is_hoarded:
            return
        most = self._gate.config.pool_max
        hoard = self._lending.notice_hoard(most, self.endpoint.address) if self._waiting else None
        if hoard is not None:
            self.starved = hoard
            self._on_starved(hoard)
        elif self._clock.now_s() - self._starved_at_s >= _FORGOTTEN_AFTER_S:
            self._sated()

    # The end

    def terminate(self) -> None:
        """End every connection now; statements in flight raise."""
        self._retire()
        for connection in tuple(self._open):
            connection.terminate()

    async def drain(self) -> None:
        """Return when every connection has been given back and closed."""
        self._retire()
        self._emptied = asyncio.Event()
        if not self._open:
            return
        for connection, _ in self._idle:
            await self._part(connection)
        await self._emptied.wait()

    def _retire(self) -> None:
        self.is_retired = True
        for task in (self._keeper, *self._dials):
            task.cancel()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(PoolRetired())

    async def _part(self, connection: asyncpg.Connection) -> None:
        with contextlib.suppress(*_LOST):
            await connection.close(timeout=self._gate.config.connect_timeout_s)

    # For people

    @property
    def size(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many borrowers wait for one."""
        return len(self._waiting)
