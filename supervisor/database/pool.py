"""The pooled connections of one uninterrupted time with one database."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.backoff import Backoff, delay_s
from supervisor.database.asyncpg_private import ProxyOwner, unwrap, wrap
from supervisor.database.error_class import (
    CONNECTION_ERRORS,
    ErrorClass,
    Failure,
    connect_failure,
    may_be_connection_loss,
)
from supervisor.errors import DatabaseUnavailable, SupervisorError
from supervisor.journal import current_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    import asyncpg

    from supervisor.clock import Clock
    from supervisor.database.monitor import ConnectionMonitor
    from supervisor.stop_signal import StopSignal
    from supervisor.tasks import BackgroundTasks


_RETRY_BACKOFF = Backoff(initial_s=0.1, factor=2.0, max_s=5.0)
_MIN_RETRY_S = 0.05
# An outage would have been found by then, and would have closed the pool.
_NO_OUTAGE_AFTER_S = 15.0
# As asyncpg's own pool: an idle connection above pool_min is closed after five minutes.
_IDLE_LIMIT_S = 300.0
_MAINTENANCE_INTERVAL_S = 10.0
_EXHAUSTION_OVER_AFTER_S = 60.0


class PoolClosed(SupervisorError):
    """The pool was closed while a task waited for its connection; there is, or will be, another pool."""


class Pool:
    """Connections to the host that the monitor is connected to; closed as a whole when an outage ends it.

    It is not asyncpg's, because there each waiting task connects: ten thousand workers before a server that takes no
    further connections would try ten thousand times. Here only the pool connects, and after a failure one connection
    at a time with growing delays, however many wait; and the tasks that wait for a closed pool go on at once instead
    of waiting for the connections in use.

    Attributes:
        endpoint: The host of its connections.
        is_closed: Whether it takes and gives no connection any more.
        exhausted: Why it cannot grow, while it cannot.
    """

    def __init__(
        self,
        monitor: ConnectionMonitor,
        *,
        clock: Clock,
        rng: Random,
        tasks: BackgroundTasks,
        on_exhausted: Callable[[Failure], None],
        on_capacity: Callable[[], None],
    ) -> None:
        assert monitor.connected is not None  # noqa: S101 - a pool is made when the monitor has connected
        self.endpoint = monitor.connected.endpoint
        self.is_closed = False
        self.exhausted: Failure | None = None
        self._monitor = monitor
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._on_exhausted = on_exhausted
        self._on_capacity_back = on_capacity
        self._open: set[asyncpg.Connection] = set()
        self._proxy_owner = ProxyOwner(self._open)
        # The most recently used is the last; each with the moment since when nobody uses it.
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._waiting: OrderedDict[asyncio.Future[asyncpg.Connection], StopSignal | None] = OrderedDict()
        self._connecting: set[asyncio.Task[None]] = set()
        self._failed_connects = 0
        self._exhausted_since_s = self._connect_failed_at_s = float("-inf")
        self._emptied: asyncio.Event | None = None
        self._checkouts = Checkouts(clock=clock)
        self._maintenance = tasks.start(self._maintain(), name="pool: keep")
        self._grow()

    async def acquire(self, stop: StopSignal | None = None) -> Any:
        """Return a connection, however long that takes.

        Raises:
            PoolClosed: The pool has ended.
            DatabaseUnavailable: The worker is to stop, and the pool has no connection and gets none.
        """
        while not self.is_closed:
            connection = self._idle.pop()[0] if self._idle else await self._wait(stop)
            if not connection.is_closed():
                self._checkouts.add(connection)
                return wrap(connection, self._proxy_owner)
        raise PoolClosed

    async def release(self, proxy: Any, *, limit_s: float) -> None:
        """Take a connection back; a failure of its reset costs this connection only."""
        connection = unwrap(proxy)
        if connection is not None:
            self._checkouts.remove(connection)
        if connection is None or connection.is_closed():
            return
        if self.is_closed:
            await self._close(connection)
            return
        try:
            await connection.reset(timeout=limit_s)
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, CONNECTION_ERRORS):
                raise
            self._monitor.request_check()
        else:
            self._give_to_waiter(connection)

    async def _wait(self, stop: StopSignal | None) -> asyncpg.Connection:
        waiter: asyncio.Future[asyncpg.Connection] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = stop

        def notice() -> None:
            self._reject_if_stopping(waiter, stop)

        if stop is not None:
            stop.add_callback(notice)
        try:
            self._grow()
            notice()
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_to_waiter(
                    waiter.result()
                )  # it arrived in the turn of the loop in which the waiting task was cancelled
            raise
        finally:
            self._waiting.pop(waiter, None)
            if stop is not None:
                stop.remove_callback(notice)

    def _give_to_waiter(self, connection: asyncpg.Connection) -> None:
        """Give a connection to the task that has waited longest."""
        if self.is_closed:
            connection.terminate()
            return
        if self._checkouts.progress():
            self._on_capacity()
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append((connection, self._clock.now_s()))

    def _reject_if_stopping(self, waiter: asyncio.Future[asyncpg.Connection], stop: StopSignal | None) -> None:
        """Reject a waiting task whose worker is to stop, if it could only wait for the database."""
        is_dry = not self._open and (self._failed_connects or self._monitor.connected is None)
        if is_dry and stop is not None and stop.is_set and not waiter.done():
            waiter.set_exception(DatabaseUnavailable("The worker is to stop, and the pool gets no connection."))

    def _reject_stopping(self) -> None:
        for waiter, stop in self._waiting.items():
            self._reject_if_stopping(waiter, stop)

    def _grow(self) -> None:
        """Connect for the tasks that wait, and up to `pool_min`."""
        config = self._monitor.config
        if self.is_closed:
            return
        room = config.pool_max - len(self._open)
        wanted = max(len(self._waiting), config.pool_min - len(self._open))
        # After a failure one connects for all.
        allowed = min(wanted, 1 if self._failed_connects else room, room)
        for _ in range(allowed - len(self._connecting)):
            attempt = self._tasks.start(self._connect_one(), name="pool: connect")
            self._connecting.add(attempt)
            attempt.add_done_callback(self._on_connect_done)

    async def _connect_one(self) -> None:
        if self._failed_connects:
            await self._clock.sleep(
                _MIN_RETRY_S + delay_s(_RETRY_BACKOFF, self._failed_connects - 1, self._rng.random())
            )
        await self._monitor.wait_until_connected()
        began_after = self._connect_failed_at_s
        try:
            connection = await self._monitor.connector.connect(self.endpoint)
        except Exception as error:  # noqa: BLE001 - no statement has begun: whatever it was, waiting is right
            self._on_connect_failed(error)
            return
        # Halved, not reset: one success among refusals must not start everybody else's attempts.
        self._failed_connects //= 2
        if began_after == self._connect_failed_at_s:
            self._on_capacity()  # not if another of several attempts failed meanwhile
        self._open.add(connection)
        connection.add_termination_listener(lambda _: self._on_closed(connection))
        self._give_to_waiter(connection)

    def _on_connect_done(self, attempt: asyncio.Task[None]) -> None:
        self._connecting.discard(attempt)
        if not attempt.cancelled():
            self._grow()

    def _on_connect_failed(self, error: Exception) -> None:
        """Note that no further connection can be made.

        53300 here is backpressure, a refused login a changed password: neither is a worker's failure, and the open
        connections still serve.
        """
        monitor = self._monitor
        failure = connect_failure(error, address=self.endpoint.address, limit_s=monitor.config.connect_timeout_s)
        self._connect_failed_at_s = self._clock.now_s()
        if not self._failed_connects:
            self._exhausted_since_s = self._connect_failed_at_s
        self._failed_connects += 1
        if may_be_connection_loss(error):
            monitor.request_check()  # it finds out whether this is an outage, which would close the pool
        if (
            not may_be_connection_loss(error)
            or self._connect_failed_at_s >= self._exhausted_since_s + _NO_OUTAGE_AFTER_S
        ):
            is_news, self.exhausted = self.exhausted is None, failure
            if is_news:
                self._on_exhausted(failure)
        self._reject_stopping()

    def _on_capacity(self) -> None:
        if self.exhausted is not None:
            self.exhausted = None
            self._on_capacity_back()

    def _on_closed(self, connection: asyncpg.Connection) -> None:
        self._open.discard(connection)
        self._checkouts.remove(connection)
        self._idle = [(other, since_s) for other, since_s in self._idle if other is not connection]
        if self._emptied is not None and not self._open:
            self._emptied.set()
        self._reject_stopping()
        self._grow()

    async def _maintain(self) -> None:
        """Close connections that have been idle for long, and check whether the pool is exhausted."""
        while True:
            await self._clock.sleep(_MAINTENANCE_INTERVAL_S)
            # One at a time: while one closes, others may be acquired.
            while (stale := self._take_stale()) is not None:
                await self._close(stale)
                self._on_closed(stale)  # asyncpg reports its end only in the loop's next turn
            self._check_exhaustion()

    def _take_stale(self) -> asyncpg.Connection | None:
        """Take out the connection that has been idle longest, if that is too long and `pool_min` remain."""
        if not self._idle or len(self._open) <= self._monitor.config.pool_min:
            return None
        connection, since_s = self._idle[0]
        if self._clock.now_s() - since_s < _IDLE_LIMIT_S:
            return None
        del self._idle[0]
        return connection

    def _check_exhaustion(self) -> None:
        """Find a leak, and end an exhaustion that is long over."""
        if self._checkouts.is_leaking:
            return
        most = self._monitor.config.pool_max
        leak = self._checkouts.find_leak(most, self.endpoint.address) if self._waiting else None
        if leak is not None:
            self.exhausted = leak
            self._on_exhausted(leak)
        elif self._clock.now_s() - self._connect_failed_at_s >= _EXHAUSTION_OVER_AFTER_S:
            self._on_capacity()

    def terminate(self) -> None:
        """End every connection now; statements in flight raise."""
        self._close_to_new()
        for connection in tuple(self._open):
            connection.terminate()

    async def drain(self) -> None:
        """Return when every connection has been given back and closed."""
        self._close_to_new()
        self._emptied = asyncio.Event()
        if not self._open:
            return
        for connection, _ in self._idle:
            await self._close(connection)
        await self._emptied.wait()

    def _close_to_new(self) -> None:
        self.is_closed = True
        for task in (self._maintenance, *self._connecting):
            task.cancel()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(PoolClosed())

    async def _close(self, connection: asyncpg.Connection) -> None:
        with contextlib.suppress(*CONNECTION_ERRORS):
            await connection.close(timeout=self._monitor.config.connect_timeout_s)

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
        """How many tasks wait for one."""
        return len(self._waiting)


# Statements may be long; if not one connection is given back for so long, it is a leak or looks like one.
_LEAK_AFTER_S = 15.0


class Checkouts:
    """Which worker has each connection of a pool, and whether any is given back.

    Attributes:
        is_leaking: Whether a leak was found, and still no connection has been given back.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.is_leaking = False
        self._clock = clock
        # The worker's name by connection.
        self._holders: dict[asyncpg.Connection, str] = {}
        self._progress_s = clock.now_s()

    def add(self, connection: asyncpg.Connection) -> None:
        """Note that the current worker has a connection."""
        self._holders[connection] = current_worker.get() or "another task"

    def remove(self, connection: asyncpg.Connection) -> None:
        """Note that the connection was given back."""
        self._holders.pop(connection, None)

    def progress(self) -> bool:
        """Record progress; return True if a suspected leak is over."""
        self._progress_s = self._clock.now_s()
        was_leaking, self.is_leaking = self.is_leaking, False
        return was_leaking

    def find_leak(self, limit: int, address: str) -> Failure | None:
        """Return which worker has most of the `limit` connections, if none has been given back for long."""
        still_s = self._clock.now_s() - self._progress_s
        if len(self._holders) < limit or still_s < _LEAK_AFTER_S:
            return None
        self.is_leaking = True
        worker, count = Counter(self._holders.values()).most_common(1)[0]
        reason = (
            f"none of its {len(self._holders)} connections has been given back for {still_s:.0f}s; "
            f"{worker} has {count} of them"
        )
        return Failure(ErrorClass.TOO_MANY_CONNECTIONS, reason, address, None, TimeoutError(reason))
