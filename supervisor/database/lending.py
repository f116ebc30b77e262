"""Who has a pool's connections, and whether anybody gives one back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from supervisor.database.error_class import ErrorClass, Failure
from supervisor.journal import current_worker

if TYPE_CHECKING:
    import asyncpg

    from supervisor.clock import Clock

# Statements may be long; that nobody at all gives a connection back for so long is a leak, or looks like one.
_HOARDED_AFTER_S = 15.0


class Lending:
    """The books of a pool.

    Attributes:
        is_hoarded: Whether it was noticed that nobody gives anything back, and still nobody has.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.is_hoarded = False
        self._clock = clock
        # Who has each connection, by the name of the worker.
        self._borrowers: dict[asyncpg.Connection, str] = {}
        self._moved_s = clock.now_s()

    def lent(self, connection: asyncpg.Connection) -> None:
        """Note that the current worker has a connection."""
        self._borrowers[connection] = current_worker.get() or "another task"

    def is_back(self, connection: asyncpg.Connection) -> None:
        """Note that nobody has it any more."""
        self._borrowers.pop(connection, None)

    def moves(self) -> bool:
        """Note that there is a connection to hand on, and say whether that ends a hoard."""
        self._moved_s = self._clock.now_s()
        was_hoarded, self.is_hoarded = self.is_hoarded, False
        return was_hoarded

    def notice_hoard(self, limit: int, address: str) -> Failure | None:
        """Say who has most of the `limit` connections, when those who wait have got none for long."""
        still_s = self._clock.now_s() - self._moved_s
        if len(self._borrowers) < limit or still_s < _HOARDED_AFTER_S:
            return None
        self.is_hoarded = True
        worker, count = Counter(self._borrowers.values()).most_common(1)[0]
        reason = (
            f"none of its {len(self._borrowers)} connections has been given back for {still_s:.0f}s; "
            f"{worker} has {count} of them"
        )
        return Failure(ErrorClass.TOO_MANY_CONNECTIONS, reason, address, None, TimeoutError(reason))
