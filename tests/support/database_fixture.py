"""A monitor with its pool in the test's own loop, and everything that it says and does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from support.entries import Entries

from supervisor.backoff import Backoff
from supervisor.clock import SystemClock
from supervisor.config.model import ConnectPolicy, DatabaseConfig, Dsn, Server
from supervisor.database.database import Database
from supervisor.stop_signal import StopSignal
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.postgres import Postgres

    from supervisor.clock import Clock
    from supervisor.database.error_class import Failure
    from supervisor.database.worker_pool import WorkerPool

LIMIT_S = 30.0


class FastClock(SystemClock):
    """The machine's clock, several times as fast: heartbeats and probations take less of a test's time."""

    def __init__(self, speed: float = 20.0) -> None:
        super().__init__()
        self._speed = speed
        self._start_s = super().now_s()

    def now_s(self) -> float:
        return self._start_s + (super().now_s() - self._start_s) * self._speed

    async def sleep(self, delay_s: float) -> None:
        until_s = self.now_s() + delay_s
        await asyncio.sleep(max(0.0, delay_s) / self._speed)
        while self.now_s() < until_s:  # noqa: ASYNC110 - timers may be early
            await asyncio.sleep(0.001)


class DatabaseFixture:
    """A database, as supervision gets it.

    Attributes:
        database: The facade.
        entries: What the journal was told.
        heard: What the listener heard: `down`, `back` and `settled`, with a `~` where it was not news.
        crashed: Background tasks that ended with an error.
    """

    def __init__(self, dsn: str, clock: Clock, **config: Any) -> None:
        self.entries = Entries()
        self.heard: list[str] = []
        self.crashed: dict[str, BaseException] = {}
        self.ended = asyncio.Event()
        self.tasks = BackgroundTasks(self._on_crash)
        self.config = DatabaseConfig(target=server(dsn), **config)
        self.database = Database(
            server(dsn), self.config, self, name="test", clock=clock, rng=Random(7), tasks=self.tasks
        )

    @property
    def monitor(self) -> Any:
        """The monitor in force."""
        return self.database.monitor

    def view(self, stop: StopSignal | None = None) -> WorkerPool:
        """A worker's `ctx.db`."""
        return self.database.pool_for(stop or StopSignal())

    def run(self) -> None:
        """Put the monitor in force."""
        self.tasks.start(self.monitor.run(), name="monitor")

    async def up(self) -> None:
        """Wait until the database is there."""
        async with asyncio.timeout(LIMIT_S):
            await self.database.wait_until_up()

    async def down(self) -> None:
        """Wait until the database is found to be away."""
        await self.until(lambda: not self.database.is_up)

    async def failure(self, kind: type[Exception]) -> Exception:
        """Wait until the monitor ends, and return why."""
        async with asyncio.timeout(LIMIT_S):
            await self.ended.wait()
        error = self.crashed.pop("monitor")
        assert isinstance(error, kind), error
        return error

    async def until(self, condition: Any, limit_s: float = LIMIT_S) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.002)

    def backend(self) -> Any:
        """The process id of the monitor's backend."""
        return self.monitor.connected.connection.get_server_pid()

    def count(self, name: str) -> int:
        """A number of the pool: size, idle, max or waiting."""
        return int(self.database.pool_counts()[name] or 0)

    def _on_crash(self, name: str, error: BaseException) -> None:
        self.crashed[name] = error
        self.ended.set()

    # What the monitor says

    def on_down(self, failure: Failure, *, announced: bool) -> None:  # noqa: ARG002 - the entries tell why
        self.heard.append("down" if announced else "~down")

    def on_up(self, *, announced: bool) -> None:
        self.heard.append("back" if announced else "~back")

    def on_stable(self) -> None:
        self.heard.append("settled")

    def on_status(self) -> None:
        pass


def server(dsn: str) -> Server:
    """Return a server as a configuration names it."""
    return Server(Dsn(dsn, redacted="postgresql://…"), "the test")


def policy(**changes: Any) -> ConnectPolicy:
    """Return a policy whose delays are a test's, not an administrator's."""
    backoff = Backoff(initial_s=0.05, factor=2.0, max_s=1.0)
    return ConnectPolicy(**{"backoff": backoff, **changes})


@asynccontextmanager
async def database_fixture(
    dsn: str, *, clock: Clock | None = None, wait: bool = True, **config: Any
) -> AsyncIterator[DatabaseFixture]:
    """Run a monitor on a connection string; wait for the first connection unless told otherwise."""
    settings = {"connect_timeout_s": 5.0, "probe_interval_s": 0.1, "startup": policy(), "runtime": policy(), **config}
    house = DatabaseFixture(dsn, clock or SystemClock(), **settings)
    with house.entries:
        house.run()
        try:
            if wait:
                await house.up()
            yield house
        finally:
            await house.database.close(limit_s=1.0)
            left = house.tasks.cancel_all()
            if left:
                await asyncio.wait(left, timeout=5)
    assert not house.crashed, house.crashed


async def sleeping(house: DatabaseFixture, postgres: Postgres, seconds: float = 60.0) -> asyncio.Future[Any]:
    """Return a worker's statement that the server has begun to execute, and that takes its time."""
    statement = asyncio.ensure_future(house.view().fetchval("select 1 from pg_sleep($1)", seconds))
    while not await aside(postgres.sessions, "query like '%pg_sleep%' and state = 'active'"):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.005)
    return statement


async def aside(action: Any, *arguments: Any) -> Any:
    """Do something that blocks in a thread, so that the loop goes on."""
    return await asyncio.to_thread(action, *arguments)
