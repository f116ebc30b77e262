"""Lays a projection out over its shards, as the newest configuration wants it."""

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
    from supervisor.workers.projection import ProjectionWork

    Rest = Callable[[float], Awaitable[bool]]

# It waits for the transactions of the former shards. As long as it waits, nobody else may take such a lock.
_LOCK_LIMIT = "1s"
_LIMIT_S = 30.0
_AGAIN = Backoff(initial_s=0.25, factor=2.0, max_s=5.0, jitter="none")
_LAY_OUT = "SELECT supervisor.lay_out($1, $2, $3 * interval '1 s')"
_IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class Layouts:
    """Since when this daemon wants its projections laid out as it does, and which of them have been.

    A daemon has its say about a projection once for each time that a person configured it here: by the start, a reload
    that changes it, a restart of the worker. The newest one wins. A projection that runs here for the first time long
    after the start, or again after it stood aside, must not undo what a node did that was reloaded meanwhile.
    """

    __slots__ = ("_done", "_lock", "_since_s")

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        # By the moment of the say that was carried out.
        self._done: dict[str, float] = {}
        # One at a time: all shards of a projection wait for the same, and the pool is for others too.
        self._lock = asyncio.Lock()

    def since_s(self, name: str, *, now_s: float) -> float:
        """Return since when a projection is configured as it is: now, if it was not known."""
        return self._since_s.setdefault(name, now_s)

    def renew(self, name: str, *, now_s: float) -> None:
        """Let whoever works on a projection from now on have a say of its own: a person has configured it now."""
        self._since_s[name] = now_s

    async def ensure(self, work: ProjectionWork, db: WorkerPool, *, rest: Rest, is_missing: bool = False) -> bool:
        """Have a projection laid out as its configuration says; false: the worker is to stop before that is done.

        Args:
            work: One of its shards.
            db: The shard's pool.
            rest: Waits for so many seconds, and returns false when the worker is to stop.
            is_missing: Whether the database shows no layout any more, or not all of it, though this was done before.

        Raises:
            ShardingConflict: A newer configuration says otherwise.
        """
        async with self._lock:
            if self._done.get(work.spec.name) == work.configured_s and not is_missing:
                return True
            return await self._lay_out(work, db, rest)

    async def _lay_out(self, work: ProjectionWork, db: WorkerPool, rest: Rest) -> bool:
        name, shards = work.spec.name, work.shard.shards
        tries = 0
        while True:
            ago_s = work.clock.now_s() - work.configured_s
            try:
                found = await _lay_out(db, name, shards, ago_s)
            except _IN_THE_WAY as error:
                if tries == 0:
                    log_event("projection.waiting", worker=name, shards=shards, reason=str(error))
                if not await rest(delay_s(_AGAIN, tries, 0.0)):
                    return False
                tries += 1
            else:
                break
        if found.shards != shards:
            raise displaced(work, found.shards)
        self._done[name] = work.configured_s
        if found.has_changed:
            log_event("projection.laid_out", worker=name, shards=shards)
        return True


class _Layout(NamedTuple):
    shards: int
    has_changed: bool


async def _lay_out(db: WorkerPool, name: str, shards: int, ago_s: float) -> _Layout:
    async with db.acquire() as connection:
        try:
            async with connection.transaction(isolation="read_committed"):
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_LIMIT}'")
                has_changed = await connection.fetchval(_LAY_OUT, name, shards, ago_s, timeout=_LIMIT_S)
                in_force = await connection.fetchval("SELECT shards FROM supervisor.projection WHERE name = $1", name)
        except asyncio.CancelledError:
            # As with a batch: whoever cancels may have a lease to give back.
            connection.terminate()
            raise
    return _Layout(in_force, bool(has_changed))


def displaced(work: ProjectionWork, found: int) -> ShardingConflict:
    """Tell that a projection has been laid out differently, and return the error that ends the run."""
    name, own = work.spec.name, work.shard.shards
    log_event("projection.displaced", worker=name, shard=work.shard.label, shards=found, own=own)
    return ShardingConflict(
        f"{name} has been laid out over {found} shard{'' if found == 1 else 's'} by a node that was configured later; "
        f"here it has {own}: reload this node with the same number, or restart the worker if this one is right"
    )
