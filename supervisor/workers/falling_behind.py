"""How far one shard is behind, and the entries about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.events.lag import NONE, Lag, is_lagging, lag_of
from supervisor.journal import log_event

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.events.checkpoint import Sight
    from supervisor.events.reader import Reader
    from supervisor.workers.projection import ProjectionWork


# A look is remembered if so much of the time since the oldest one has passed: some two hundred of them for a day.
_APART = 1 / 16


class _Mark(NamedTuple):
    """The end of the log when it was looked at: what lies there has waited at least since."""

    head: int
    seen_s: float


class FallingBehind:
    """The lag of one run; it asks the database nothing, and takes what reading brings along.

    Args:
        work: Whose run it is.
        reader: Where the run stands.
        warning_s: The lag that is worth an entry; 0: none is.
    """

    __slots__ = ("_head", "_marks", "_reader", "_server_time", "_since_s", "_warning_s", "_work")

    def __init__(self, work: ProjectionWork, reader: Reader, *, warning_s: float) -> None:
        self._work = work
        self._reader = reader
        self._warning_s = warning_s
        self._head = 0
        # Ages are counted by the server's clock, as the events' own times are.
        self._server_time: tuple[datetime, float] | None = None
        # By position and by time. One mark would not do: where writers overlap there is always something unread,
        # another thing each time.
        self._marks: list[_Mark] = []
        self._since_s: float | None = None

    def saw(self, sight: Sight) -> None:
        """Note what a look at the log has shown."""
        now_s = self._work.clock.now_s()
        self._server_time = (sight.now, now_s)
        if sight.head < self._head:
            self._marks = []  # another log: a standby that was promoted lacks the end
        self._head = sight.head
        self._marks = self._unread_marks()
        if sight.head > self._reader.read_upto and self._is_apart(now_s):
            self._marks.append(_Mark(sight.head, now_s))

    @property
    def lag(self) -> Lag:
        """How far behind it is."""
        if self._server_time is None:
            return NONE
        reader, now_s = self._reader, self._work.clock.now_s()
        at, seen_s = self._server_time
        marks = self._unread_marks()
        waited_s = now_s - marks[0].seen_s if marks else 0.0
        if reader.oldest_at is not None:
            waited_s = (at - reader.oldest_at).total_seconds() + now_s - seen_s
        unread = max(self._head, self._work.bell.head) - reader.read_upto
        return lag_of(pending=reader.pending, unread=unread, density=reader.density, waited_s=waited_s)

    def look(self) -> bool:
        """Tell when it begins or ends to lag; returns whether it is behind at all."""
        lag, was_lagging = self.lag, self._since_s is not None
        lags = is_lagging(lag, was_lagging=was_lagging, warning_s=self._warning_s)
        now_s, work = self._work.clock.now_s(), self._work
        if lags and not was_lagging:
            self._since_s = now_s
            log_event(
                "projection.lagging", worker=work.spec.name, shard=work.shard.label, events=lag.events,
                lag_s=round(lag.seconds, 3),
            )  # fmt: skip
        elif self._since_s is not None and not lags:
            log_event(
                "projection.caught_up", worker=work.spec.name, shard=work.shard.label,
                took_s=round(now_s - self._since_s, 3),
            )  # fmt: skip
            self._since_s = None
        return lag != NONE or self._since_s is not None

    def _unread_marks(self) -> list[_Mark]:
        return [mark for mark in self._marks if mark.head > self._reader.read_upto]

    def _is_apart(self, now_s: float) -> bool:
        marks = self._marks
        return not marks or now_s - marks[-1].seen_s >= (now_s - marks[0].seen_s) * _APART
