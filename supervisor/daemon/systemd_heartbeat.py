"""The messages that systemd gets regularly: that the daemon is healthy, and that a long step needs more time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from supervisor.daemon.component import Component
from supervisor.journal import log_event
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from supervisor.clock import Clock
    from supervisor.systemd.notify import Notifier
    from supervisor.tasks import BackgroundTasks

# EXTEND_TIMEOUT_USEC counts from its own arrival and has to be repeated within its own period.
EXTEND_S = 15.0
_INTERVAL_S = 5.0
_RETRY_S = 0.2


class SystemdHeartbeat(Component):
    """Feeds the watchdog from the event loop, and only while the daemon is healthy.

    An outage of the database, a slow handler or a parked worker is no reason to be killed; a blocked
    loop is, and so is a background task of the daemon that is stuck.

    Args:
        notifier: systemd's notify socket.
        clock: Time.
        tasks: Where the heartbeat runs.
        needs_time: Whether the daemon starts, stops or reloads, so that systemd has to wait longer.
        unhealthy: Returns the names of the parts that are stuck.
        on_beat: Called before each pause, to put right what other code changed in this process.
    """

    name = "systemd heartbeat"

    def __init__(
        self,
        notifier: Notifier,
        *,
        clock: Clock,
        tasks: BackgroundTasks,
        needs_time: Callable[[], bool],
        unhealthy: Callable[[], Sequence[str]],
        on_beat: Callable[[], Awaitable[None]],
    ) -> None:
        self._notifier = notifier
        self._clock = clock
        self._tasks = tasks
        self._needs_time = needs_time
        self._unhealthy = unhealthy
        self._on_beat = on_beat
        self._wakeup = Wakeup(clock=clock)
        self._was_healthy = True

    async def start(self) -> None:
        """Start the task."""
        self._tasks.start(self._run(), name=self.name, critical=True)

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - nothing is waited for
        """End the task."""
        self._tasks.cancel(self.name)

    def wake(self) -> None:
        """Send soon: a message waits to be sent again."""
        self._wakeup.wake()

    def send(self) -> None:
        """Send now; a long step begins with this, since the timeout that it extends may be a short one."""
        if self._needs_time():
            self._notifier.extend(EXTEND_S)
        unhealthy = self._unhealthy()
        if not unhealthy and self._notifier.watchdog_interval_s is not None:
            self._notifier.watchdog()
        elif self._was_healthy and unhealthy:
            log_event("daemon.unhealthy", part=", ".join(unhealthy))
        self._was_healthy = not unhealthy

    async def _run(self) -> NoReturn:
        notifier = self._notifier
        while True:
            self.send()
            await self._on_beat()
            if notifier.has_pending:
                notifier.retry()
            if (problem := notifier.pop_problem()) is not None:
                log_event("notify.failed", reason=problem)
            interval_s = min(_INTERVAL_S, notifier.watchdog_interval_s or _INTERVAL_S)
            pause_s = _RETRY_S if notifier.has_pending else interval_s
            await self._wakeup.wait(self._clock.now_s() + pause_s)
