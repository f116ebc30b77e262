"""Ends what runs under leases that can no longer be trusted, whatever the database does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from supervisor.leases.stand import LeaseState
from supervisor.leases.trust import GRACE_S, TRUST_S, has_outlived, trusted_until_s
from supervisor.leases.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.stand import LocalLease
    from supervisor.leases.stands import LocalLeases


class Deadline(NamedTuple):
    """By when nothing may run under the leases any more.

    Attributes:
        at_s: The moment.
        lease: One of them, for people.
    """

    at_s: float
    lease: str


class Trustee:
    """Watches the time since the last sign that this node's session holds its leases.

    It has a task of its own, because the node's loop may be waiting for the very answer that does not come.

    Attributes:
        deadline: For a thread that looks after an event loop which does not turn; None: nothing runs under a lease.
    """

    def __init__(
        self,
        stands: LocalLeases,
        *,
        clock: Clock,
        on_distrust: Callable[[str], object],
        on_outlived: Callable[[str], object] | None,
    ) -> None:
        self.deadline: Deadline | None = None
        self._confirmed_s = float("-inf")
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

    def confirm(self, sent_s: float) -> None:
        """Note that a question sent at this time has shown the session alive, and its locks."""
        self._confirmed_s = sent_s
        self._set_deadline()

    def see(self) -> None:
        """See at once whether the leases are still to be trusted: the process may have been stopped for long."""
        if self._stands.believed() and self._clock.now_s() >= trusted_until_s(self._confirmed_s):
            self._on_distrust(f"no answer from the server that shows it held for {TRUST_S:g}s")

    def notice(self) -> None:
        """Look at the stands again: something has changed."""
        self._waker.call()

    async def run(self) -> NoReturn:
        """Watch, for ever."""
        try:
            await self._watch()
        finally:
            for session in self._ended:
                session.terminate()

    async def _watch(self) -> NoReturn:
        while True:
            now_s = self._clock.now_s()
            until_s = trusted_until_s(self._confirmed_s)
            self.see()
            lost = self._stands.within(LeaseState.LOST)
            for stand in lost:
                if has_outlived(stand.lost_s, now_s):
                    stand.lost_s = None
                    if self._on_outlived is not None:
                        self._on_outlived(stand.name)
            self._end_vacated()
            self._set_deadline()
            await self._waker.wait(self._due_s(lost, until_s))

    def _end_vacated(self) -> None:
        occupied = {stand.session for stand in self._stands.within(LeaseState.LOST)}
        for session in tuple(self._ended):
            if session not in occupied:
                self._ended.remove(session)
                session.terminate()

    def _set_deadline(self) -> None:
        """Say when the process is to end if nothing happens any more."""
        risky = next(
            (s.name for s in self._stands if s.state in (LeaseState.HELD, LeaseState.REVOKING, LeaseState.LOST)), None
        )
        self.deadline = None if risky is None else Deadline(trusted_until_s(self._confirmed_s) + GRACE_S, risky)

    def _due_s(self, lost: list[LocalLease], until_s: float) -> float | None:
        """Return in how many seconds there is something to see to."""
        dues = [stand.lost_s + GRACE_S for stand in lost if stand.lost_s is not None]
        if self._stands.believed():
            dues.append(until_s)
        return max(0.0, min(dues) - self._clock.now_s()) if dues else None
