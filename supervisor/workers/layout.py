"""Lays a projection out over its shards, once for each configuration of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.config.model import Backoff
from supervisor.database.backoff import delay_s
from supervisor.errors import Poisoned
from supervisor.journal import tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.config.model import WorkerSpec
    from supervisor.database.waiting_pool import WaitingPool

# It waits for the transactions of the former shards. As long as it waits, nobody else may take such a lock.
_LOCK_LIMIT = "1s"
_LIMIT_S = 30.0
_AGAIN = Backoff(initial_s=0.25, factor=2.0, max_s=5.0, jitter="none")
_IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class Layouts:
    """What this daemon has laid out: all shards of a worker, and all their runs, share one layout.

    A start and a reload lay out; a run that comes later takes what it finds. Otherwise two nodes with different
    configurations would take turns for ever.
    """

    __slots__ = ("_done", "_lock")

    def __init__(self) -> None:
        self._done: dict[str, WorkerSpec] = {}
        self._lock = asyncio.Lock()

    async def ensure(
        self, spec: WorkerSpec, shards: int, db: WaitingPool, *, rest: Callable[[float], Awaitable[bool]]
    ) -> bool:
        """Lay a worker out unless that was done for this configuration of it; false: it is to stop before.

        Args:
            spec: The worker.
            shards: Over how many shards.
            db: Its pool.
            rest: Waits for so many seconds, and returns false when the worker is to stop.
        """
        async with self._lock:
            tries = 0
            while self._done.get(spec.name) != spec:
                try:
                    has_changed = await _lay_out(db, spec.name, shards)
                except _IN_THE_WAY as error:
                    if tries == 0:
                        tell("projection.waiting", worker=spec.name, shards=shards, reason=str(error))
                    if not await rest(delay_s(_AGAIN, tries, 0.0)):
                        return False
                    tries += 1
                else:
                    self._done[spec.name] = spec
                    if has_changed:
                        tell("projection.laid_out", worker=spec.name, shards=shards)
        return True


async def _lay_out(db: WaitingPool, name: str, shards: int) -> Any:
    async with db.acquire() as connection:
        try:
            async with connection.transaction(isolation="read_committed"):
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_LIMIT}'")
                return await connection.fetchval("SELECT supervisor.lay_out($1, $2)", name, shards, timeout=_LIMIT_S)
        except asyncio.CancelledError:
            connection.terminate()
            raise


def displaced(name: str, label: str | None, own: int, found: int) -> Poisoned:
    """Tell that another node has laid a projection out differently, and return the error that ends the run."""
    tell("projection.displaced", worker=name, shard=label, shards=found, own=own)
    if not found:
        return Poisoned(f"there is no projection {name} in the database any more; restart the worker to begin anew")
    return Poisoned(
        f"another node has laid {name} out over {found} shards; here it is configured for {own}: reload this node"
    )
