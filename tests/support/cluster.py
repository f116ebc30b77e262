"""Several nodes in the test's own loop, each with a database of its own and workers that do nothing but run."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import asyncpg
from support.database_fixture import policy, server
from support.entries import Entries

from supervisor.clock import SystemClock
from supervisor.config.model import DatabaseConfig
from supervisor.database.database import Database
from supervisor.database.schema.migrate import migrate
from supervisor.journal.writer import Counts
from supervisor.leases.fence import begin_fence
from supervisor.leases.lease import LeaseStatus
from supervisor.leases.node import Node
from supervisor.runtime import Runtime
from supervisor.systemd.notify import Notifier
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from supervisor.clock import Clock
    from supervisor.leases.lease import Lease
    from supervisor.leases.local_lease import LocalLease

LIMIT_S = 30.0


class Occupant:
    """An instance of a worker: it runs while the lease is held, and ends in time unless the test says otherwise.

    Attributes:
        local: Its lease on this node.
        epochs: Those under which it has run.
        ends: Why each run ended.
        is_stubborn: Whether it goes on when its lease is revoked or lost.
        lingers_s: How long it takes to end.
    """

    def __init__(self, local: LocalLease, on_change: Callable[[], object]) -> None:
        self.local = local
        self.epochs: list[int] = []
        self.ends: list[LeaseStatus] = []
        self.is_running = False
        self.is_stubborn = False
        self.lingers_s = 0.0
        self._on_change = on_change
        local.on_change(self.notice)
        local.request()

    @property
    def lease(self) -> Lease:
        """The lease under which it runs."""
        assert self.local.lease is not None
        return self.local.lease

    def notice(self) -> None:
        status = self.local.status
        if status is LeaseStatus.HELD and not self.is_running:
            self.is_running = True
            self.epochs.append(self.lease.epoch)
        elif status in (LeaseStatus.REVOKING, LeaseStatus.LOST) and not self.is_stubborn:
            if self.is_running:
                self.ends.append(status)
            asyncio.get_running_loop().call_later(self.lingers_s, self.end)
        self._on_change()

    def end(self) -> None:
        """Have ended."""
        self.is_running = False
        self.local.worker_ended()
        self._on_change()


class NoJournal:
    """The part of a journal that a reload changes; these nodes are not reloaded."""

    counts = Counts(written=0, folded=0, dropped=0)

    def set_level(self, level: str) -> None: ...

    def set_format(self, log_format: str) -> None: ...


class Member:
    """One node of a cluster.

    Attributes:
        overrun: The leases whose workers were named as running on without them.
    """

    def __init__(self, cluster: Cluster, name: str, dsn: str, clock: Clock, seed: int, **config: Any) -> None:
        self.name = name
        self.cluster = cluster
        self.overrun: list[str] = []
        self.occupants: dict[str, Occupant] = {}
        self.tasks = BackgroundTasks(self._on_crash)
        settings = {"probe_interval_s": 0.1, "startup": policy(), "runtime": policy(), **config}
        idle_timeout_s = settings.pop("idle_timeout_s", 15.0)
        self.database = Database(
            server(dsn), DatabaseConfig(target=server(dsn), **settings), self, name=name, clock=clock, rng=Random(seed),
            tasks=self.tasks,
        )  # fmt: skip
        runtime = Runtime(clock, Random(seed), self.tasks, Notifier(None), NoJournal())
        self.node = Node(
            self.database, name, runtime=runtime, version="", on_overrun=self.overrun.append,
            idle_timeout_s=idle_timeout_s,
        )  # fmt: skip

    async def start(self, leases: Iterable[str] = ()) -> None:
        """Connect, join and request leases."""
        self.tasks.start(self.database.monitor.run(), name="monitor")
        async with asyncio.timeout(LIMIT_S):
            await self.node.join()
        self.request(leases)

    def request(self, leases: Iterable[str]) -> None:
        """Request further leases."""
        for lease in leases:
            self.occupants[lease] = Occupant(self.node.lease(lease), self.cluster.changed)

    async def stop(self) -> None:
        """Stop as a daemon does."""
        await self.node.drain()
        for occupant in self.occupants.values():
            occupant.local.decline()
        await self.node.leave()
        await self.kill()

    async def kill(self) -> None:
        """End without a word: the sockets close, as a killed process's do."""
        for occupant in self.occupants.values():
            occupant.is_running = False
            occupant.local.on_change(None)
        self.node._expiry_thread.stop()
        monitor = self.database.monitor
        left = self.tasks.cancel_all()
        monitor.close()
        await self.database.close(limit_s=0.0)
        if left:
            await asyncio.wait(left, timeout=5)
        if self in self.cluster.members:
            self.cluster.members.remove(self)

    @property
    def held(self) -> set[str]:
        """The leases under which it runs something."""
        return {name for name, occupant in self.occupants.items() if occupant.is_running}

    def backend(self) -> int:
        """The process id of its session."""
        joined = self.node._registration.current
        assert joined is not None
        return joined.backend.pid

    async def commit(self, lease: str) -> int:
        """Commit a fenced transaction under a lease it holds; return its epoch."""
        occupant = self.occupants[lease]
        held = occupant.lease
        pool, connection = await self.database.acquire(None)
        try:
            async with connection.transaction():
                await begin_fence(connection, held, 5.0)
            return held.epoch
        finally:
            await self.database.release(pool, connection)

    def _on_crash(self, name: str, error: BaseException) -> None:
        self.cluster.crashed[f"{self.name}: {name}"] = error
        self.cluster.changed()

    # What the monitor says

    def on_down(self, failure: Any, *, announced: bool) -> None: ...

    def on_up(self, *, announced: bool) -> None: ...

    def on_stable(self) -> None: ...

    def on_status(self) -> None: ...


class Cluster:
    """Nodes on one database.

    Attributes:
        members: Those that live.
        entries: What the journal was told, by all of them.
        crashed: Background tasks that ended with an error.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.members: list[Member] = []
        self.entries = Entries()
        self.crashed: dict[str, BaseException] = {}
        self._changed = asyncio.Event()
        self._count = 0

    async def add(
        self, *leases: str, dsn: str | None = None, clock: Clock | None = None, name: str | None = None, **config: Any
    ) -> Member:
        """Start a node that requests leases."""
        member = self.make(dsn=dsn, clock=clock, name=name, **config)
        await member.start(leases)
        return member

    def make(
        self, *, dsn: str | None = None, clock: Clock | None = None, name: str | None = None, **config: Any
    ) -> Member:
        """Make a node that is not started yet."""
        self._count += 1
        member = Member(self, name or f"n{self._count}", dsn or self.dsn, clock or SystemClock(), self._count, **config)
        self.members.append(member)
        return member

    def changed(self) -> None:
        """Have conditions looked at again."""
        self._changed.set()

    async def until(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        """Wait until something is so; it is looked at whenever a worker starts or ends, and now and then."""
        async with asyncio.timeout(limit_s):
            while not condition():
                assert not self.crashed, self.crashed
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self._changed.wait()

    def counted(self, event: str) -> list[int]:
        """Return of how many leases each entry of this name told, in order; those at debug level are left out."""
        return [told.fields["leases"] for told in self.entries.of(event) if told.level > 10]

    def holders(self, lease: str) -> list[Member]:
        """Return the nodes on which a worker runs under a lease."""
        return [member for member in self.members if lease in member.held]

    async def holder(self, lease: str, *, other_than: Member | None = None, limit_s: float = LIMIT_S) -> Member:
        """Wait until a node runs a worker under a lease, and return it."""
        await self.until(lambda: any(one is not other_than for one in self.holders(lease)), limit_s)
        return next(one for one in self.holders(lease) if one is not other_than)

    async def query(self, sql: str, *args: Any) -> list[Any]:
        """Ask the database, on a connection of its own, past any proxy."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()


@asynccontextmanager
async def cluster(dsn: str) -> AsyncIterator[Cluster]:
    """Prepare a database for nodes; those that still live at the end are ended."""
    connection = await asyncpg.connect(dsn)
    try:
        await migrate(connection, mode="auto", clock=SystemClock(), rng=Random(1))
    finally:
        await connection.close()
    them = Cluster(dsn)
    with them.entries:
        try:
            yield them
        finally:
            for member in list(them.members):
                await member.kill()
    assert not them.crashed, them.crashed
