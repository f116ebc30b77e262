"""What an instance says in the journal, and how loudly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.config.model import Level


class Report:
    """The entries of one instance.

    Attributes:
        name: The instance, for people: `mail`, or `mail/3` (a shard: `view/1of4`) where there are several.
        reason: Why it was last told to stop.
        is_quiet: Whether it is one of many that change at once: their entry tells it for all, and
            each one's own is at debug level.
    """

    __slots__ = ("_has_begun", "_worker", "is_quiet", "name", "reason")

    def __init__(self, worker: str, *, instance: str | None = None) -> None:
        self.name = instance or worker
        self.reason: str | None = None
        self.is_quiet = False
        self._worker = worker
        self._has_begun = False

    def began(self) -> None:
        """Tell that a run begins; only the first one is news, the others were announced."""
        self._tell("worker.started", level="debug" if self._has_begun else self._level())
        self._has_begun = True

    def failed(self, error: BaseException, *, is_told: bool) -> None:
        """Tell an error; `is_told`: others tell it, an outage for one once for all workers."""
        self._tell("worker.failed", exc=error, level="debug" if is_told else None)

    def returned(self) -> None:
        """Tell that a service ended by itself, which it should not."""
        self._tell("worker.ended", reason="it returned")

    def restarting(self, delay_s: float, restarts: int) -> None:
        """Tell that it runs again after a backoff."""
        self._tell("worker.restarting", delay_s=round(delay_s, 3), restarts=restarts)

    def finished(self, reason: str) -> None:
        """Tell that it has ended and is not run again."""
        self._tell("worker.stopped", reason=reason)

    def exhausted(self, restarts: int, window_s: float) -> None:
        """Tell that it used up its restarts."""
        self._tell("worker.exhausted", restarts=restarts, window_s=window_s)

    def stopped(self, reason: str | None, *, cut_off_after_s: float | None = None) -> None:
        """Tell that it ended as it was told.

        Args:
            reason: Why it was told to.
            cut_off_after_s: How long its work in flight was waited for in vain, if it was cut off.
        """
        if cut_off_after_s is None:
            self._tell("worker.stopped", reason=reason, level=self._level())
        else:
            self._tell("worker.stopped", reason=reason, cancelled_after_s=cut_off_after_s, level="warning")

    def left(self, reason: str) -> None:
        """Tell that it ended because its lease went; what became of the leases is told in one entry by others."""
        self._tell("worker.stopped", reason=reason, level="debug")

    def paused(self) -> None:
        """Tell that it is paused."""
        self._tell("worker.paused", level=self._level())

    def unpaused(self) -> None:
        """Tell that it goes on."""
        self._tell("worker.unpaused", level=self._level())

    def stalled(self, limit_s: float, stack: str) -> None:
        """Tell that a tick took too long, and where it stood."""
        self._tell("worker.stalled", limit_s=limit_s, stack=stack)

    def abandoned(self, limit_s: float, stack: str) -> None:
        """Tell that it ignores its stop, and where it stands."""
        self._tell("worker.abandoned", limit_s=round(limit_s, 3), stack=stack)

    def _level(self) -> Level | None:
        return "debug" if self.is_quiet else None

    def _tell(self, event: str, *, level: Level | None = None, exc: BaseException | None = None, **fields: Any) -> None:
        if self.name != self._worker:
            fields["instance"] = self.name
        log_event(event, exc=exc, level=level, worker=self._worker, **fields)
