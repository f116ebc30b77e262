"""A projection at work in the test's own loop, on a real database, with a lease that the test gives and takes."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
from support.database_fixture import database_fixture
from support.schema import make_schema
from support.scripted_lease import ScriptedLease

from supervisor.backoff import Backoff
from supervisor.clock import SystemClock
from supervisor.config.model import Projection, WorkerSpec
from supervisor.events.append_signal import AppendSignal
from supervisor.events.shard import Shard, lease_name
from supervisor.leases.lease import Lease, LeaseStatus
from supervisor.stop_signal import StopSignal
from supervisor.workers.projection.shard_context import ShardContext
from supervisor.workers.projection.sharding import ShardingClaims
from supervisor.workers.projection.work import ProjectionWork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from support.database_fixture import DatabaseFixture

    from supervisor.clock import Clock

LIMIT_S = 30.0


class Held(ScriptedLease):
    """A lease with a real row, whose epoch grows when the test gives it."""

    def __init__(self, name: str, owner: asyncpg.Connection) -> None:
        super().__init__(name)
        self._owner = owner
        self.reasons: list[str] = []

    async def take(self) -> Lease:
        """Acquire it as a node does: the holder before this one is fenced out."""
        lease_id = await self._owner.fetchval("select id from supervisor.lease_ids(array[$1])", self.name)
        row: Any = await self._owner.fetchrow(
            "update supervisor.lease set epoch = epoch + 1, incarnation = $2 where id = $1"
            " returning id, epoch, incarnation",
            lease_id, uuid4(),
        )  # fmt: skip
        self.lease = Lease(self.name, row["epoch"], row["id"], row["incarnation"])
        self._become(LeaseStatus.HELD)
        return self.lease

    def report_lost(self, reason: str) -> None:
        self.reasons.append(reason)
        super().report_lost(reason)


class Actor:
    """One shard's work, run again and again if the test says so.

    Attributes:
        work: The work.
        stop: The stop of the run under way.
        task: The run under way.
    """

    def __init__(self, work: ProjectionWork, lease_handle: Held) -> None:
        self.work = work
        self.lease_handle = lease_handle
        self.stop = StopSignal()
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the lease, and run."""
        await self.lease_handle.take()
        self.go_on()

    def go_on(self) -> None:
        """Run under the lease that it has."""
        self.stop = StopSignal()
        self.task = asyncio.create_task(self.work.run(self.stop))

    async def end(self) -> None:
        """Stop, and wait for the end; what the run raised is raised here."""
        self.stop.set()
        await self.ended()

    async def leave(self) -> None:
        """Be gone, whatever it does; what the run raised is of no interest any more."""
        if self.task is None:
            return
        self.stop.set()
        if not self.task.done():
            await asyncio.wait({self.task}, timeout=5)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def ended(self) -> None:
        """Wait for the end of the run; what it raised is raised here."""
        assert self.task is not None
        async with asyncio.timeout(LIMIT_S):
            await self.task


class ProjectionHarness:
    """A database with the schema, a daemon's parts, and projections on them.

    Attributes:
        house: The database as workers see it.
        owner: A connection of the test's own.
        append_signal: What wakes the projections.
        claims: The numbers of shards that the daemon claims.
    """

    def __init__(self, house: DatabaseFixture, owner: asyncpg.Connection, clock: Clock) -> None:
        self.house = house
        self.owner = owner
        self.clock = clock
        self.append_signal = AppendSignal()
        self.claims = ShardingClaims()
        self.actors: list[Actor] = []

    @property
    def entries(self) -> Any:
        """What the journal was told."""
        return self.house.entries

    def cast(
        self, function: Callable[..., Any], *, name: str = "view", shard: int = 0, claims: ShardingClaims | None = None,
        stall_timeout_s: float = 0.0, **kind: Any,
    ) -> Actor:  # fmt: skip
        """Return the work of a shard, not yet running."""
        settings = Projection(**kind)
        spec = WorkerSpec(name, "m:f", settings, backoff=Backoff(initial_s=0.01), stall_timeout_s=stall_timeout_s)
        lease_handle = Held(lease_name(name, shard, settings.shards), self.owner)
        claims = claims or self.claims
        context = ShardContext(
            spec, settings, Shard(name, shard, settings.shards), function, lease_handle=lease_handle,
            append_signal=self.append_signal, database=self.house.database, clock=self.clock, rng=Random(7),
            configured_s=claims.since_s(name, now_s=self.clock.now_s()),
        )  # fmt: skip
        work = ProjectionWork(context, claims)
        actor = Actor(work, lease_handle)
        self.actors.append(actor)
        return actor

    async def play(self, function: Callable[..., Any], **options: Any) -> Actor:
        """Run a projection's shard under its lease."""
        actor = self.cast(function, **options)
        await actor.start()
        return actor

    async def append(self, stream: str, type_: str = "happened", **data: Any) -> int:
        """Append an event and return its position."""
        return int(await self.owner.fetchval("select supervisor.append($1, $2, $3)", stream, type_, json.dumps(data)))

    async def append_many(self, count: int, stream: str = "s") -> None:
        """Append so many events in one transaction, with their numbers from 1 on as data."""
        await self.owner.execute(
            "select supervisor.append($1, 'happened', jsonb_build_object('n', n)) from generate_series(1, $2) as n",
            stream, count,
        )  # fmt: skip

    async def checkpoint(self, name: str = "view", shard: int = 0) -> Any:
        """Return the row of a checkpoint."""
        return await self.owner.fetchrow(
            "select * from supervisor.checkpoint where projection = $1 and shard = $2", name, shard
        )

    async def until(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        """Wait until something is so; it may be asked in the database."""
        async with asyncio.timeout(limit_s):
            while True:
                is_so = condition()
                if asyncio.iscoroutine(is_so):
                    is_so = await is_so
                if is_so:
                    return
                await asyncio.sleep(0.002)

    async def applied_upto(self, position: int, *, name: str = "view", shard: int = 0) -> None:
        """Wait until a checkpoint has come to a position."""

        async def is_there() -> bool:
            row = await self.checkpoint(name, shard)
            return row is not None and row["position"] >= position

        await self.until(is_there)


class Seen:
    """A handler that remembers what it was given and writes it into the table `seen`, with a number for each row.

    Attributes:
        batches: How many events each call had.
        refuse: Whether an event cannot be applied.
    """

    def __init__(self, refuse: Callable[[Any], bool] = lambda _: False) -> None:
        self.batches: list[int] = []
        self.positions: list[int] = []
        self.refuse = refuse

    async def __call__(self, ctx: Any, events: Sequence[Any]) -> None:
        self.batches.append(len(events))
        rows = [(ctx.name, event.position, event.stream) for event in events]
        await ctx.tx.executemany("insert into seen (name, position, stream) values ($1, $2, $3)", rows)
        if refused := [event.position for event in events if self.refuse(event)]:
            raise ValueError(f"cannot apply {refused[0]}")
        self.positions += [event.position for event in events]


async def seen(projection_harness: ProjectionHarness, name: str = "view") -> list[int]:
    """Return the positions that are in the table, in the order of their writing."""
    rows = await projection_harness.owner.fetch("select position from seen where name = $1 order by id", name)
    return [row["position"] for row in rows]


async def appended(projection_harness: ProjectionHarness) -> list[int]:
    """Return the positions of all events."""
    rows = await projection_harness.owner.fetch("select position from supervisor.event order by position")
    return [row["position"] for row in rows]


@asynccontextmanager
async def projection_harness(
    dsn: str, *, clock: Clock | None = None, **config: Any
) -> AsyncIterator[ProjectionHarness]:
    """Set a stage on a database; whatever runs at the end is stopped."""
    await make_schema(dsn)
    clock = clock or SystemClock()
    async with database_fixture(dsn, clock=clock, **config) as house:
        owner = await asyncpg.connect(dsn)
        await owner.execute(
            "create table if not exists seen (id bigserial primary key, name text, position bigint, stream text)"
        )
        listener = await asyncpg.connect(dsn)
        made = ProjectionHarness(house, owner, clock)
        await listener.add_listener("supervisor_event", lambda *_: made.append_signal.notify())
        try:
            yield made
        finally:
            await asyncio.gather(*(actor.leave() for actor in made.actors))
            listener.terminate()
            await owner.close(timeout=5)
