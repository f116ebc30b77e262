"""How far behind a shard is, and when that is worth an entry; pure."""

from __future__ import annotations

from typing import NamedTuple


class Lag(NamedTuple):
    """How far behind a shard is.

    Attributes:
        events: How many events wait to be applied; those that have not been read yet are estimated.
        seconds: For how long the oldest of them has waited.
    """

    events: int
    seconds: float


NO_LAG = Lag(0, 0.0)


def compute_lag(*, pending: int, unread: int, match_ratio: float, waited_s: float) -> Lag:
    """Return the lag of a shard.

    Args:
        pending: Events that have been read and wait.
        unread: Positions between the last one that was read and the end of the log.
        match_ratio: The share of positions that hold an event of this shard, from 0 to 1.
        waited_s: For how long the oldest of all these has waited.
    """
    if not (pending or unread > 0):
        return NO_LAG
    return Lag(pending + round(max(0, unread) * match_ratio), max(0.0, waited_s))


def is_lagging(lag: Lag, *, was_lagging: bool, warning_s: float) -> bool:
    """Whether a shard lags: from `warning_s` on (0: never), until the lag is below half of it.

    Half, because a lag that stays near the limit would fill the journal.
    """
    if warning_s <= 0:
        return False
    return lag.seconds >= (warning_s / 2 if was_lagging else warning_s)
