"""Gives a projection the number of shards of the newest configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from supervisor.backoff import Backoff, delay_s
from supervisor.errors import ShardingConflict
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.database.worker_pool import WorkerPool
    from supervisor.workers.projection.shard_context import ShardContext

    # Waits for so many seconds; false: the worker is to stop.
    SleepUntilStop = Callable[[float], Awaitable[bool]]

# The statement waits for the transactions of the former shards; meanwhile every other session waits behind it.
_LOCK_TIMEOUT = "1s"
_TIMEOUT_S = 30.0
_BACKOFF = Backoff(initial_s=0.25, factor=2.0, max_s=5.0, jitter="none")
_RESHARD = "SELECT supervisor.reshard($1, $2, $3 * interval '1 s')"
_LOCK_CONFLICTS = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class ShardingClaims:
    """Since when this daemon's configuration of each projection counts, and which claims were applied.

    A daemon claims its number of shards once for each time that an operator configured the projection here: by the
    start, by a reload that changes it, by a restart of the worker. The newest claim wins. A projection that runs here
    for the first time long after the start, or again after a conflict, must not undo the claim of a node that was
    reloaded meanwhile.
    """

    __slots__ = ("_applied", "_lock", "_since_s")

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        # By the time of the claim.
        self._applied: dict[str, float] = {}
        # One at a time: all shards of a projection wait for the same, and other workers need the pool too.
        self._lock = asyncio.Lock()

    def since_s(self, name: str, *, now_s: float) -> float:
        """Return since when a projection is configured as it is: now, if it was not known."""
        return self._since_s.setdefault(name, now_s)

    def touch(self, name: str, *, now_s: float) -> None:
        """Give a projection a new claim: an operator has configured it now."""
        self._since_s[name] = now_s

    async def ensure(
        self, context: ShardContext, db: WorkerPool, *, sleep: SleepUntilStop, is_missing: bool = False
    ) -> bool:
        """Have the projection sharded as its configuration says; false: the worker is to stop before that is done.

        Args:
            context: One of its shards.
            db: The shard's pool.
            sleep: Waits for so many seconds, and returns false when the worker is to stop.
            is_missing: Whether the checkpoint is missing in the database, though the claim was applied before.

        Raises:
            ShardingConflict: A newer configuration says otherwise.
        """
        async with self._lock:
            if self._applied.get(context.spec.name) == context.configured_s and not is_missing:
                return True
            return await self._apply(context, db, sleep)

    async def _apply(self, context: ShardContext, db: WorkerPool, sleep: SleepUntilStop) -> bool:
        name, shards = context.spec.name, context.shard.shards
        attempts = 0
        while True:
            ago_s = context.clock.now_s() - context.configured_s
            try:
                found = await _reshard(db, name, shards, ago_s)
            except _LOCK_CONFLICTS as error:
                if attempts == 0:
                    log_event("projection.waiting", worker=name, shards=shards, reason=str(error))
                if not await sleep(delay_s(_BACKOFF, attempts, 0.0)):
                    return False
                attempts += 1
            else:
                break
        if found.shards != shards:
            raise sharding_conflict(context, found.shards)
        self._applied[name] = context.configured_s
        if found.has_changed:
            log_event("projection.resharded", worker=name, shards=shards)
        return True


class _Sharding(NamedTuple):
    shards: int
    has_changed: bool


async def _reshard(db: WorkerPool, name: str, shards: int, ago_s: float) -> _Sharding:
    async with db.acquire() as connection:
        try:
            async with connection.transaction(isolation="read_committed"):
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                has_changed = await connection.fetchval(_RESHARD, name, shards, ago_s, timeout=_TIMEOUT_S)
                in_force = await connection.fetchval("SELECT shards FROM supervisor.projection WHERE name = $1", name)
        except asyncio.CancelledError:
            # As with a batch: a cancelled run may have to release its lease at once.
            connection.terminate()
            raise
    return _Sharding(in_force, bool(has_changed))


def sharding_conflict(context: ShardContext, found: int) -> ShardingConflict:
    """Log that a newer configuration has another number of shards, and return the error that ends the run."""
    name, own = context.spec.name, context.shard.shards
    log_event("projection.sharding_conflict", **context.log_fields, shards=found, own=own)
    return ShardingConflict(
        f"{name} is configured with {own} shard{'' if own == 1 else 's'} here, but a node with a newer configuration "
        f"uses {found}: reload this node with the same number, or restart the worker here if {own} is right"
    )
