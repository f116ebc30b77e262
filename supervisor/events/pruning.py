"""Deletes events that are old and that every projection has passed, if `[events] keep` asks for it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from supervisor.database.error_class import may_be_connection_loss
from supervisor.database.schema.locks import LockSpace
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.tasks import BackgroundTasks

EVERY_S = 60.0
_TASK = "events: prune"
# Rows per transaction: it must not hold up a vacuum or a replica for long.
_MAX_ROWS = 10_000
_TIMEOUT_S = 60.0
# One node is enough; the others find the lock taken and delete nothing. The lock ends with the statement.
_PRUNE = f"""
    SELECT CASE WHEN pg_try_advisory_xact_lock({LockSpace.PRUNING:d}, 0) THEN supervisor.prune_events($1, {_MAX_ROWS})
        ELSE 0 END
"""


class EventPruner:
    """Prunes once a minute, and sends no statement at all while events are kept for ever.

    Args:
        database: Where the events are.
        keep_s: Returns how long events are kept; 0: for ever.
        clock: Time.
        tasks: Where the loop runs.
    """

    def __init__(
        self, database: Database, *, keep_s: Callable[[], float], clock: Clock, tasks: BackgroundTasks
    ) -> None:
        self._database = database
        self._keep_s = keep_s
        self._clock = clock
        self._tasks = tasks
        self._is_running = False

    def start(self) -> None:
        """Start the loop, unless events are kept for ever or it runs already; call it after each reload too."""
        if not self._is_running and self._keep_s() > 0:
            self._is_running = True
            self._tasks.start(self._run(), name=_TASK, critical=True)

    def stop(self) -> None:
        """End the loop."""
        self._is_running = False
        self._tasks.cancel(_TASK)

    async def _run(self) -> NoReturn:
        while True:
            await self._clock.sleep(EVERY_S)
            if self._keep_s() > 0:
                await self._prune()

    async def _prune(self) -> None:
        pruned = 0
        try:
            while (count := await self._prune_some()) > 0:
                pruned += count
                if count < _MAX_ROWS:
                    break
        except Exception as error:  # noqa: BLE001 - the next minute tries again; leases must not suffer
            if not may_be_connection_loss(error):  # an outage is logged elsewhere
                log_event("events.prune_failed", reason=f"{type(error).__name__}: {error}")
        if pruned:
            log_event("events.pruned", events=pruned)

    async def _prune_some(self) -> int:
        pool, connection = await self._database.acquire(None)
        try:
            count: int = await connection.fetchval(_PRUNE, timedelta(seconds=self._keep_s()), timeout=_TIMEOUT_S)
        finally:
            await self._database.release(pool, connection)
        return count
