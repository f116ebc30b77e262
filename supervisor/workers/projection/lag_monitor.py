"""How far one shard is behind, and the entries about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.events.lag import NO_LAG, Lag, compute_lag, is_lagging
from supervisor.journal import log_event

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.events.reader import LogPosition, Reader
    from supervisor.workers.projection.shard_context import ShardContext


# A sample is kept if this share of the time since the oldest one has passed: about two hundred samples for a day.
_SAMPLE_SPACING = 1 / 16


class _HeadSample(NamedTuple):
    """The end of the log at one time: events before it have waited at least since then."""

    head: int
    seen_s: float


class LagMonitor:
    """The lag of one run; it sends no statements, and uses what reading finds out anyway.

    Args:
        context: The shard.
        reader: How far the run has read.
    """

    __slots__ = ("_context", "_head", "_reader", "_samples", "_server_time", "_since_s")

    def __init__(self, context: ShardContext, reader: Reader) -> None:
        self._context = context
        self._reader = reader
        self._head = 0
        # Ages are counted by the server's clock, as the events' own times are.
        self._server_time: tuple[datetime, float] | None = None
        # By position and by time. One sample is not enough: where writers overlap something is always unread, each time
        # another event.
        self._samples: list[_HeadSample] = []
        self._since_s: float | None = None

    def record(self, log: LogPosition) -> None:
        """Note how far the log goes."""
        now_s = self._context.clock.now_s()
        self._server_time = (log.now, now_s)
        if log.head < self._head:
            self._samples = []  # another log: a promoted standby lacks the end
        self._head = log.head
        self._samples = self._unread_samples()
        if log.head > self._reader.read_position and self._is_sample_due(now_s):
            self._samples.append(_HeadSample(log.head, now_s))

    @property
    def lag(self) -> Lag:
        """How far behind the shard is."""
        if self._server_time is None:
            return NO_LAG
        reader, now_s = self._reader, self._context.clock.now_s()
        at, seen_s = self._server_time
        samples = self._unread_samples()
        waited_s = now_s - samples[0].seen_s if samples else 0.0
        if reader.oldest_at is not None:
            waited_s = (at - reader.oldest_at).total_seconds() + now_s - seen_s
        unread = max(self._head, self._context.append_signal.head) - reader.read_position
        return compute_lag(pending=reader.pending, unread=unread, match_ratio=reader.match_ratio, waited_s=waited_s)

    def check(self) -> bool:
        """Log when the shard starts or stops to lag; return whether it is behind at all."""
        lag, was_lagging = self.lag, self._since_s is not None
        context, now_s = self._context, self._context.clock.now_s()
        lags = is_lagging(lag, was_lagging=was_lagging, warning_s=context.kind.lag_warning_s)
        if lags and not was_lagging:
            self._since_s = now_s
            log_event("projection.lagging", **context.log_fields, events=lag.events, lag_s=round(lag.seconds, 3))
        elif self._since_s is not None and not lags:
            log_event("projection.caught_up", **context.log_fields, took_s=round(now_s - self._since_s, 3))
            self._since_s = None
        return lag != NO_LAG or self._since_s is not None

    def _unread_samples(self) -> list[_HeadSample]:
        return [sample for sample in self._samples if sample.head > self._reader.read_position]

    def _is_sample_due(self, now_s: float) -> bool:
        samples = self._samples
        return not samples or now_s - samples[-1].seen_s >= (now_s - samples[0].seen_s) * _SAMPLE_SPACING
