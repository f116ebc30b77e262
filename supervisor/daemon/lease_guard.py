"""A thread that ends the process when its leases are over and the event loop does not turn to see to it."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from supervisor.leases.trust import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.leases.trustee import Deadline

# A deadline is always further away when it is set: shorter than trust without the heartbeat's distance.
_LOOK_EVERY_S = 1.0
# The loop sees to it at the same moment, where it turns.
_AFTER_THE_LOOP_S = 0.2
_LATE_S = 1.0


class LeaseGuard:
    """Stands in for the event loop that code without an await keeps from turning: the server gives the locks away.

    A guard that comes late itself was stopped with the whole process, which nothing can have run in: then the loop
    gets its grace to end what it runs.
    """

    def __init__(
        self, deadline: Callable[[], Deadline | None], *, on_outlived: Callable[[str], object], clock: Clock
    ) -> None:
        self._deadline = deadline
        self._on_outlived = on_outlived
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lease guard", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch; it does not wait."""
        self._stopped.set()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        not_before_s = float("-inf")
        while True:
            looked_s = self._clock.now_s()
            if self._stopped.wait(_LOOK_EVERY_S):
                return
            now_s = self._clock.now_s()
            if now_s > looked_s + _LOOK_EVERY_S + _LATE_S:
                not_before_s = now_s + GRACE_S
            due = self._deadline()
            if due is not None and now_s >= max(due.at_s, not_before_s) + _AFTER_THE_LOOP_S:
                self._on_outlived(due.lease)
