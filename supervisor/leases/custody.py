"""What this node does with the locks and rows of its leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from supervisor.backoff import Backoff, delay_s
from supervisor.database.session import SessionEnded
from supervisor.leases.lease import Lease
from supervisor.leases.lease_entries import LeaseEntries
from supervisor.leases.stand import LeaseEvent, LeaseState
from supervisor.leases.stands import LocalLeases
from supervisor.leases.taking import Taker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.database.session import Session
    from supervisor.leases.joining import Joined
    from supervisor.leases.stand import LocalLease
    from supervisor.leases.taking import Taken
    from supervisor.tasks import BackgroundTasks

_TRY = "SELECT supervisor.try_leases($1) AS ids"
_RELEASE = "SELECT supervisor.release_leases($1, $2)"
# After an acquisition that failed another node has a turn, and then this one again.
_AGAIN = Backoff(initial_s=1.0, factor=2.0, max_s=15.0)
_AT_LEAST_S = 0.5


class Custody:
    """The leases of one node: takes, loses and gives back.

    Attributes:
        stands: How this node stands to each.
        entries: What the journal hears of it.
        take_after_s: Until when nothing is taken, because it did not work.
    """

    def __init__(
        self,
        database: Database,
        node: str,
        *,
        clock: Clock,
        rng: Random,
        tasks: BackgroundTasks,
        on_change: Callable[[], object],
    ) -> None:
        self.stands = LocalLeases(
            now_s=clock.now_s, on_change=on_change, on_lost=lambda stand, why: self.lose([stand], why)
        )
        self.entries = LeaseEntries(clock=clock, tasks=tasks)
        self.take_after_s = float("-inf")
        self._trouble: str | None = None
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._on_change = on_change
        self._taker = Taker(database, node, clock=clock)
        self._failures = 0
        # Leases that could not be taken: somebody may have deleted their rows.
        self._doubted: set[int] = set()

    @property
    def trouble(self) -> str | None:
        """Why the last acquisition failed; None: it did not, or it is a while ago."""
        return self._trouble if self._clock.now_s() < self.take_after_s + _AT_LEAST_S + _AGAIN.max_s else None

    def lose(self, stands: Iterable[LocalLease], reason: str) -> None:
        """Have what runs under these leases cancelled, and say it once for all."""
        for stand in list(stands):
            epoch = stand.lease.epoch if stand.lease is not None else None
            if stand.happens(LeaseEvent.LOST) and stand.state is LeaseState.LOST:
                self.entries.note("lease.lost", stand.name, epoch=epoch, reason=reason)

    def end_session(self, session: Session, reason: str) -> None:
        """Note that every lock of a session is gone."""
        self.lose((stand for stand in self.stands if stand.session is session), reason)

    async def give_back(self, joined: Joined, strays: tuple[int, ...] = ()) -> None:
        """Release what nothing runs under any more; raises as `Session.do` does.

        Args:
            joined: This node's session.
            strays: Locks that nobody here stands for.
        """
        leaving = self.stands.within(LeaseState.RELEASING)
        for stand in leaving:
            if stand.session is not joined.session:
                stand.happens(LeaseEvent.RELEASED)  # it went with its session
                if stand.session is None or stand.session.monitor is not joined.session.monitor:
                    self._doubted.add(stand.id or 0)  # of another database
        ours = [stand for stand in leaving if stand.session is joined.session]
        if ids := {stand.id for stand in ours if stand.id is not None} | set(strays):
            await joined.session.fetch(_RELEASE, sorted(ids), joined.id)
        for stand in ours:
            if stand.happens(LeaseEvent.RELEASED) and stand.given_epoch is not None:
                self.entries.note("lease.released", stand.name, epoch=stand.given_epoch)
        if self._doubted:
            self.stands.forget_rows(self._doubted)
            self._doubted.clear()

    async def acquire(self, joined: Joined, leases: tuple[int, ...]) -> None:
        """Try the locks of leases, and have those that are got taken in the background; raises as `Session.do` does."""
        trying = self.stands.happens(leases, LeaseEvent.TRY)
        for stand in trying:
            stand.session = joined.session
        try:
            [(got,)] = await joined.session.fetch(_TRY, [stand.id for stand in trying])
        except SessionEnded:
            raise
        except asyncpg.PostgresError:
            self.stands.happens(leases, LeaseEvent.REFUSED)
            raise
        self.stands.happens(tuple(set(leases).difference(got)), LeaseEvent.REFUSED)
        if got:
            self._tasks.start(self._take(joined, tuple(got)), name="leases: take")

    async def _take(self, joined: Joined, leases: tuple[int, ...]) -> None:
        left, reason = await self._taker.take(
            {stand.id: stand.name for stand in self.stands.of(leases) if stand.id is not None},
            joined,
            is_open=lambda lease: self._is_acquiring(joined, lease),
            on_taken=lambda taken: self._taken(joined, taken),
        )
        left = tuple(lease for lease in left if self._is_acquiring(joined, lease))
        if left:
            self._trouble = f"{len(left)} of its leases could not be taken: {reason}"
            self.take_after_s = self._clock.now_s() + _AT_LEAST_S + delay_s(_AGAIN, self._failures, self._rng.random())
            self._failures += 1
            # Given back: others may have more luck.
            self._doubted.update(left)
            self.stands.happens(left, LeaseEvent.REVOKE)
            self._on_change()
        else:
            self._failures, self._trouble = 0, None

    def _is_acquiring(self, joined: Joined, lease: int) -> bool:
        stands = self.stands.of((lease,))
        return any(stand.state is LeaseState.ACQUIRING and stand.session is joined.session for stand in stands)

    def _taken(self, joined: Joined, taken: Taken) -> None:
        for stand in self.stands.of(tuple(taken.epochs)):
            epoch = taken.epochs[stand.id or 0]
            if stand.session is joined.session and stand.happens(
                LeaseEvent.ACQUIRED, Lease(stand.name, epoch, stand.id or 0, taken.incarnation)
            ):
                self.entries.note("lease.acquired", stand.name, epoch=epoch)
