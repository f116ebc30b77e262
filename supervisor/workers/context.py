"""What a worker sees of the daemon."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from supervisor.errors import SupervisorError
from supervisor.workers.nap import nap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.leases.lease import Lease, LeaseHandle
    from supervisor.stop_signal import StopSignal
    from supervisor.supervision.ports import DatabaseStatus


class Context:
    """A worker's own view: its name and settings, its log, the database, and its stop.

    A new one is made for each run. It is cheap, and what costs something is made when it is first used.
    """

    __slots__ = ("_clock", "_db", "_lease", "_log", "_outages", "_spec", "_stop", "_tenure", "_tx")

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        stop: StopSignal,
        outages: DatabaseStatus,
        clock: Clock,
        tenure: LeaseHandle | None = None,
    ) -> None:
        self._spec = spec
        self._stop = stop
        self._outages = outages
        self._clock = clock
        self._tenure = tenure
        # That of this run for good: what a run leaves behind must not write under the epoch of the next one.
        self._lease = None if tenure is None else tenure.lease
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
            from supervisor.journal import worker_logger  # noqa: PLC0415 - ten thousand workers may never log

            self._log = worker_logger(self._spec.name)
        return self._log

    @property
    def db(self) -> Any:
        """An asyncpg pool that waits while the database is down.

        Once the worker is to stop it raises `DatabaseUnavailable` instead of waiting on.
        """
        if self._db is None:
            self._db = self._outages.pool_for(self._stop)
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

    def lend(self, tx: Any) -> None:
        """Show the transaction of a batch as `tx`; None: the batch is over."""
        self._tx = tx

    @property
    def stopping(self) -> bool:
        """Whether the worker is to stop: true from then on.

        Who looks at it gets `stop_timeout` to end by itself.
        """
        self._stop.is_cooperative = True
        return self._stop.is_set

    async def sleep(self, seconds: float) -> None:
        """Sleep, but return early when the worker is to stop.

        A sleep that begins when the worker is already to stop is where it ends: it is cancelled there.
        So `while True: await work(); await ctx.sleep(1)` ends after at most one more piece of work, and
        never in the middle of it.
        """
        await nap(seconds, stop=self._stop, clock=self._clock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Open a transaction on a pooled connection, which is yielded.

        A singleton's is fenced: it cannot commit once the lease has passed to another node.

        Raises:
            LeaseLost: The lease is lost; nothing has been written.
        """
        if self._tenure is not None:
            from supervisor.workers.fenced import fenced  # noqa: PLC0415 - most workers have no lease

            async with fenced(self.db, self._tenure, self._lease) as connection:
                yield connection
            return
        async with self.db.acquire() as connection, connection.transaction():
            yield connection
