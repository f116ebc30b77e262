"""What keeps a node from its leases for long: told once in the journal, and once when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.clock import Clock

# What passes by itself, such as a deadlock or a pool that is busy for a moment, has passed by then.
TOLD_AFTER_S = 5.0


class Trouble:
    """The trouble of one node as the journal hears of it."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._since_s: float | None = None
        self._is_told = False

    def see(self, reason: str | None) -> None:
        """Take note of what the trouble is now; None: there is none."""
        now_s = self._clock.now_s()
        if reason is None:
            if self._is_told and self._since_s is not None:
                log_event("lease.untroubled", after_s=round(now_s - self._since_s, 1))
            self._since_s, self._is_told = None, False
        elif self._since_s is None:
            self._since_s = now_s
        elif not self._is_told and now_s >= self._since_s + TOLD_AFTER_S:
            self._is_told = True
            log_event("lease.trouble", reason=reason)
