"""How far one shard is behind, and the entries about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.events.lag import NONE, Lag, is_lagging, lag_of
from supervisor.journal import tell

if TYPE_CHECKING:
    from datetime import datetime

    from supervisor.events.checkpoint import Sight
    from supervisor.events.reader import Reader
    from supervisor.workers.projection import ProjectionWork


class FallingBehind:
    """The lag of one run; it asks the database nothing, and takes what reading brings along.

    Args:
        work: Whose run it is.
        reader: Where the run stands.
        warning_s: The lag that is worth an entry; 0: none is.
    """

    __slots__ = ("_head", "_reader", "_server_time", "_since_s", "_unread_since_s", "_warning_s", "_work")

    def __init__(self, work: ProjectionWork, reader: Reader, *, warning_s: float) -> None:
        self._work = work
        self._reader = reader
        self._warning_s = warning_s
        self._head = 0
        # Ages are counted by the server's clock, as the events' own times are.
        self._server_time: tuple[datetime, float] | None = None
        self._unread_since_s: float | None = None
        self._since_s: float | None = None

    def saw(self, sight: Sight) -> None:
        """Note what a look at the log has shown."""
        now_s = self._work.clock.now_s()
        if self._reader.read_upto >= self._head:
            self._unread_since_s = None  # all that was unread at the last look, however long ago that was
        self._server_time = (sight.now, now_s)
        self._head = sight.head
        if self._unread_since_s is None and sight.head > self._reader.read_upto:
            self._unread_since_s = now_s

    @property
    def lag(self) -> Lag:
        """How far behind it is."""
        if self._server_time is None:
            return NONE
        reader, now_s = self._reader, self._work.clock.now_s()
        at, seen_s = self._server_time
        waited_s = 0.0 if self._unread_since_s is None else now_s - self._unread_since_s
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
            tell(
                "projection.lagging", worker=work.spec.name, shard=work.shard.label, events=lag.events,
                lag_s=round(lag.seconds, 3),
            )  # fmt: skip
        elif self._since_s is not None and not lags:
            tell(
                "projection.caught_up", worker=work.spec.name, shard=work.shard.label,
                took_s=round(now_s - self._since_s, 3),
            )  # fmt: skip
            self._since_s = None
        return lag != NONE or self._since_s is not None
