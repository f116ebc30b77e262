"""What systemd hears regularly: that the daemon is alive, and that a long step needs more time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.clock import done_within
from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.daemon.daemon import Daemon

# EXTEND_TIMEOUT_USEC counts from its own arrival and has to be repeated within its own period.
EXTEND_S = 15.0
_EVERY_S = 5.0
_RETRY_S = 0.2


class Pulse:
    """Feeds the watchdog from the event loop, and only while the daemon is sound.

    An outage of the database, a slow handler or a parked worker is no reason to be killed; a blocked
    loop is, and so is a part of the daemon that has stopped turning.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._was_sound = True
        self._roused: asyncio.Future[None] | None = None

    def rouse(self) -> None:
        """Beat soon: something waits to be told again."""
        if self._roused is not None and not self._roused.done():
            self._roused.set_result(None)

    async def run(self) -> None:
        """Beat for ever."""
        daemon = self._daemon
        notifier = daemon.notifier
        while True:
            self.beat()
            daemon.retake_signals()
            if daemon.control is not None and not daemon.is_stopping:
                await daemon.control.mend()
            if notifier.has_pending:
                notifier.retry()
            if (problem := notifier.pop_problem()) is not None:
                log_event("notify.failed", reason=problem)
            every_s = min(_EVERY_S, notifier.watchdog_interval_s or _EVERY_S)
            self._roused = asyncio.get_running_loop().create_future()
            await done_within(self._roused, _RETRY_S if notifier.has_pending else every_s, clock=daemon.clock)

    def beat(self) -> None:
        """Tell systemd now; a long step begins with this, since the timeout it extends may be a short one."""
        daemon = self._daemon
        if not daemon.is_ready or daemon.is_stopping or daemon.reloader.is_running:
            daemon.notifier.extend(EXTEND_S)
        is_sound = self.is_sound()
        if is_sound and daemon.notifier.watchdog_interval_s is not None:
            daemon.notifier.watchdog()
        elif self._was_sound and not is_sound:
            log_event(
                "daemon.unsound", reason="a part of the daemon has stopped turning; the watchdog is no longer fed"
            )
        self._was_sound = is_sound

    def is_sound(self) -> bool:
        """Whether every part of the daemon turns."""
        daemon = self._daemon
        if daemon.is_stopping:
            return True  # the stop has deadlines of its own
        now_s = daemon.clock.now_s()
        gate_turns = daemon.database is None or not daemon.database.monitor.is_stuck(now_s)
        leases_turn = daemon.leasing is None or not daemon.leasing.is_overdue(now_s)
        return gate_turns and leases_turn and (daemon.supervisor is None or daemon.supervisor.is_healthy())
