"""Ends what runs under leases that can no longer be trusted, whatever the database does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from supervisor.leases.stand import State
from supervisor.leases.trust import GRACE_S, TRUST_S, has_outlived, trusted_until_s
from supervisor.leases.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.stand import Stand
    from supervisor.leases.stands import Stands


class Trustee:
    """Watches the time since the last sign that this node's session holds its leases.

    It has a task of its own, because the node's loop may be waiting for the very answer that does not come.

    Attributes:
        confirmed_s: When the last question was sent whose answer showed the session alive, and its locks.
    """

    def __init__(
        self,
        stands: Stands,
        *,
        clock: Clock,
        on_distrust: Callable[[str], object],
        on_outlived: Callable[[str], object] | None,
    ) -> None:
        self.confirmed_s = float("-inf")
        self._stands = stands
        self._clock = clock
        self._waker = Waker(clock=clock)
        self._on_distrust = on_distrust
        self._on_outlived = on_outlived
        self._ended: list[Session] = []

    def hang_up(self, session: Session) -> None:
        """End a session's connection, but not before what ran under its leases has ended.

        The server may not have noticed anything: it would give the locks away at once.
        """
        self._ended.append(session)
        self._end_vacated()

    def notice(self) -> None:
        """Look at the stands again: something has changed."""
        self._waker.call()

    async def run(self) -> NoReturn:
        """Watch, for ever."""
        try:
            await self._watch()
        finally:
            for session in self._ended:
                session.hang_up()

    async def _watch(self) -> NoReturn:
        while True:
            now_s = self._clock.now_s()
            until_s = trusted_until_s(self.confirmed_s)
            if self._stands.believed() and now_s >= until_s:
                self._on_distrust(f"no answer from the server that shows it held for {TRUST_S:g}s")
            lost = self._stands.within(State.LOST)
            for stand in lost:
                if has_outlived(stand.lost_s, now_s):
                    stand.lost_s = None
                    if self._on_outlived is not None:
                        self._on_outlived(stand.name)
            self._end_vacated()
            await self._waker.wait(self._due_s(lost, until_s))

    def _end_vacated(self) -> None:
        occupied = {stand.session for stand in self._stands.within(State.LOST)}
        for session in tuple(self._ended):
            if session not in occupied:
                self._ended.remove(session)
                session.hang_up()

    def _due_s(self, lost: list[Stand], until_s: float) -> float | None:
        """Return in how many seconds there is something to see to."""
        dues = [stand.lost_s + GRACE_S for stand in lost if stand.lost_s is not None]
        if self._stands.believed():
            dues.append(until_s)
        return max(0.0, min(dues) - self._clock.now_s()) if dues else None
