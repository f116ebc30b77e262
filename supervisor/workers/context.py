"""`ctx`: what a worker sees of the daemon."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from supervisor.errors import SupervisorError
from supervisor.journal import worker_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.leases.lease import Lease, LeaseHandle
    from supervisor.stop_signal import StopSignal
    from supervisor.supervision.ports import DatabaseStatus

# Between two cancellations of a worker that swallowed the first one: it must not spin.
_MIN_PAUSE_S = 0.1


class Context:
    """A worker's name and settings, its log, the database, and its stop.

    A new one is made for each run. That is cheap: what costs something is made when it is first used.
    """

    __slots__ = ("_clock", "_database", "_db", "_lease", "_lease_handle", "_log", "_spec", "_stop", "_tx")

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        stop: StopSignal,
        database: DatabaseStatus,
        clock: Clock,
        lease_handle: LeaseHandle | None = None,
    ) -> None:
        self._spec = spec
        self._stop = stop
        self._database = database
        self._clock = clock
        self._lease_handle = lease_handle
        # Fixed for this run: tasks that the run leaves behind must not write under the epoch of the next run.
        self._lease = None if lease_handle is None else lease_handle.lease
        self._tx: Any = None
        self._log: Any = None
        self._db: Any = None

    @property
    def name(self) -> str:
        """The worker's name, as in `[workers.NAME]`."""
        return self._spec.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """The worker's own settings, read-only."""
        return MappingProxyType(self._spec.settings)

    @property
    def log(self) -> Any:
        """A structlog logger bound to the worker."""
        if self._log is None:
            self._log = worker_logger(self._spec.name)
        return self._log

    @property
    def db(self) -> Any:
        """An asyncpg pool that waits while the database is down.

        Once the worker is to stop it raises `DatabaseUnavailable` instead of waiting on.
        """
        if self._db is None:
            self._db = self._database.pool_for(self._stop)
        return self._db

    @property
    def lease(self) -> Lease | None:
        """The lease under which this run goes on, with its name and epoch; None: the worker needs none."""
        return self._lease

    @property
    def tx(self) -> Any:
        """The connection whose transaction moves a projection's checkpoint, during its batch.

        Raises:
            SupervisorError: There is no such transaction (any more).
        """
        if self._tx is None:
            raise SupervisorError(
                f"{self.name} has no ctx.tx now: it is a projection's, from its call to its return; "
                "elsewhere write `async with ctx.transaction() as connection:`"
            )
        return self._tx

    def _set_tx(self, tx: Any) -> None:
        """Set the transaction of a batch as `tx`; None: the batch is over."""
        self._tx = tx

    @property
    def stopping(self) -> bool:
        """Whether the worker is to stop; stays true.

        A worker that reads it has `stop_timeout` to end by itself.
        """
        self._stop.is_cooperative = True
        return self._stop.is_set

    async def sleep(self, seconds: float) -> None:
        """Sleep, but return early when the worker is to stop.

        A sleep that begins when the worker is already to stop is cancelled. So `while True: await work();
        await ctx.sleep(1)` ends after at most one more piece of work, and never in the middle of it.
        """
        await interruptible_sleep(seconds, stop=self._stop, clock=self._clock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Open a transaction on a pooled connection, and yield the connection.

        A singleton's transaction is fenced: it cannot commit once the lease has passed to another node.

        Raises:
            LeaseLost: The lease is lost; nothing has been written.
        """
        if self._lease_handle is not None:
            # A daemon without leases does not load the package for them.
            from supervisor.workers.fenced_transaction import fenced_transaction  # noqa: PLC0415

            async with fenced_transaction(self.db, self._lease_handle, self._lease) as connection:
                yield connection
            return
        async with self.db.acquire() as connection, connection.transaction():
            yield connection


class _Sleeper:
    """Wakes a sleeping task the way `asyncio.timeout` does: cancelled, then uncancelled.

    It needs no task and no future but the timer's own: ten thousand workers may sleep at the same time.
    """

    __slots__ = ("is_interrupted", "task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.is_interrupted = False

    def interrupt(self) -> None:
        if not self.is_interrupted:
            self.is_interrupted = True
            self.task.cancel()


async def interruptible_sleep(delay_s: float, *, stop: StopSignal, clock: Clock) -> None:
    """Sleep until `delay_s` seconds have passed or the worker is to stop.

    A worker that is already to stop is cancelled here: it is between two pieces of its work.
    """
    stop.is_cooperative = True
    if stop.is_set:
        await _cancel_current(delay_s, stop=stop, clock=clock)
    task = _current_task()
    cancelled_before = task.cancelling()
    sleeper = _Sleeper(task)
    interrupt = sleeper.interrupt
    stop.add_callback(interrupt)
    try:
        await clock.sleep(delay_s)
    except asyncio.CancelledError:
        # Somebody else may have cancelled the task at the same time; then that counts.
        if not sleeper.is_interrupted or task.uncancel() > cancelled_before:
            raise
    finally:
        stop.remove_callback(interrupt)


async def _cancel_current(delay_s: float, *, stop: StopSignal, clock: Clock) -> None:
    task = _current_task()
    if task in stop.cancelled_tasks:
        await clock.sleep(max(delay_s, _MIN_PAUSE_S))
    else:
        stop.cancelled_tasks = (*stop.cancelled_tasks, task)
    task.cancel()
    await clock.sleep(_MIN_PAUSE_S)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("ctx.sleep() needs a running task")
    return task
