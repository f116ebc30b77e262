"""Ends what runs under leases that can no longer be trusted, whatever the database does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from supervisor.leases.stand import State
from supervisor.leases.trust import GRACE_S, TRUST_S, has_outlived, trusted_until_s
from supervisor.leases.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
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

    def notice(self) -> None:
        """Look at the stands again: something has changed."""
        self._waker.call()

    async def run(self) -> NoReturn:
        """Watch, for ever."""
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
            await self._waker.wait(self._due_s(lost, until_s))

    def _due_s(self, lost: list[Stand], until_s: float) -> float | None:
        """Return in how many seconds there is something to see to."""
        dues = [stand.lost_s + GRACE_S for stand in lost if stand.lost_s is not None]
        if self._stands.believed():
            dues.append(until_s)
        return max(0.0, min(dues) - self._clock.now_s()) if dues else None
