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


NONE = Lag(0, 0.0)


def lag_of(*, pending: int, unread: int, density: float, waited_s: float) -> Lag:
    """Return the lag of a shard.

    Args:
        pending: Events that have been read and wait.
        unread: Positions between what was read and the end of the log.
        density: How many of a hundred positions hold an event of this shard, as a fraction of 1.
        waited_s: For how long the oldest of all these has waited.
    """
    if not (pending or unread > 0):
        return NONE
    return Lag(pending + round(max(0, unread) * density), max(0.0, waited_s))


def is_lagging(lag: Lag, *, was_lagging: bool, warning_s: float) -> bool:
    """Whether a shard lags: from `warning_s` on (0: never), until half of that is undercut.

    Half, or a lag that stays about there would fill the journal.
    """
    if warning_s <= 0:
        return False
    return lag.seconds >= (warning_s / 2 if was_lagging else warning_s)
