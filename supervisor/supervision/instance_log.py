"""What an instance counts for `status`, and the journal entries that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event
from supervisor.journal.exceptions import one_line

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.config.model import Level


class InstanceStats:
    """Counters and times of an instance; they outlive a restart by an operator and a reload.

    Attributes:
        runs: Runs begun.
        restarts: Restarts after a run that ended by itself.
        failures: Runs that ended with an error of their own.
        last_error: The last error, as one line without secrets.
        failed_s: When that was, on the monotonic clock.
        last_started: When a run last began.
        last_ended: When a run last ended.
    """

    __slots__ = ("failed_s", "failures", "last_ended", "last_error", "last_started", "restarts", "runs")

    def __init__(self) -> None:
        self.runs = 0
        self.restarts = 0
        self.failures = 0
        self.last_error: str | None = None
        self.failed_s = float("-inf")
        self.last_started: datetime | None = None
        self.last_ended: datetime | None = None

    def note_failure(self, error: BaseException, *, now_s: float) -> None:
        """Count a failure and keep its text; the exception itself would keep its frames alive."""
        self.failures += 1
        self.last_error = one_line(error)
        self.failed_s = now_s


class InstanceLog:
    """The journal entries of one instance.

    Args:
        worker: The worker.
        instance: The instance's name where the worker has several.
        shard: Which shard it is, if it is one: failures of two shards are different, those of two replicas are not.

    Attributes:
        name: The instance's name: `mail`, or `mail/3` (a shard: `view/1of4`) where there are several.
        stop_reason: Why it was last asked to stop.
        log_at_debug: Whether it is one of many that change at once: one entry reports the change for all, and
            each one's own is at debug level.
    """

    __slots__ = ("_has_started", "_shard", "_worker", "log_at_debug", "name", "stop_reason")

    def __init__(self, worker: str, *, instance: str | None = None, shard: str | None = None) -> None:
        self.name = instance or worker
        self.stop_reason: str | None = None
        self.log_at_debug = False
        self._worker = worker
        self._shard = shard
        self._has_started = False

    def started(self) -> None:
        """Log that a run begins; only the first one is news, restarts have an entry of their own."""
        self._log("worker.started", level="debug" if self._has_started else self._level())
        self._has_started = True

    def failed(self, error: BaseException, *, was_logged: bool) -> None:
        """Log an error; `was_logged`: another entry reports it, as that of an outage does for all workers."""
        self._log("worker.failed", exc=error, level="debug" if was_logged else None)

    def returned(self) -> None:
        """Log that a service ended by itself, which it should not."""
        self._log("worker.ended", reason="it returned")

    def restarting(self, delay_s: float, restarts: int) -> None:
        """Log that it runs again after a backoff."""
        self._log("worker.restarting", delay_s=round(delay_s, 3), restarts=restarts)

    def finished(self, reason: str) -> None:
        """Log that it has ended and is not run again."""
        self._log("worker.stopped", reason=reason)

    def exhausted(self, restarts: int, window_s: float) -> None:
        """Log that it used up its restarts."""
        self._log("worker.exhausted", restarts=restarts, window_s=window_s)

    def stopped(self, reason: str | None, *, cancelled_after_s: float | None = None) -> None:
        """Log that it ended as it was asked to.

        Args:
            reason: Why it was asked to.
            cancelled_after_s: After how long its work in flight was cancelled, if it was.
        """
        if cancelled_after_s is None:
            self._log("worker.stopped", reason=reason, level=self._level())
        else:
            self._log("worker.stopped", reason=reason, cancelled_after_s=cancelled_after_s, level="warning")

    def lease_moved(self, reason: str) -> None:
        """Log that it ended because its lease went; one entry of the node's reports the leases."""
        self._log("worker.stopped", reason=reason, level="debug")

    def paused(self) -> None:
        """Log that it is paused."""
        self._log("worker.paused", level=self._level())

    def unpaused(self) -> None:
        """Log that it runs again after a pause."""
        self._log("worker.unpaused", level=self._level())

    def stalled(self, limit_s: float, stack: str) -> None:
        """Log that a tick took too long, and where it waits."""
        self._log("worker.stalled", limit_s=limit_s, stack=stack)

    def abandoned(self, limit_s: float, stack: str) -> None:
        """Log that it ignores its stop, and where it waits."""
        self._log("worker.abandoned", limit_s=round(limit_s, 3), stack=stack)

    def _level(self) -> Level | None:
        return "debug" if self.log_at_debug else None

    def _log(self, event: str, *, level: Level | None = None, exc: BaseException | None = None, **fields: Any) -> None:
        if self.name != self._worker:
            fields["instance"] = self.name
        if self._shard is not None:
            fields["shard"] = self._shard
        log_event(event, exc=exc, level=level, worker=self._worker, **fields)
