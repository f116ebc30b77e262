"""The lag of a shard, and when it is worth an entry."""

from __future__ import annotations

import pytest

from supervisor.events.lag import NO_LAG, Lag, compute_lag, is_lagging


def test_a_lag_counts_what_is_known_and_estimates_the_rest() -> None:
    """Nothing pending and nothing unread is no lag, however long ago the last event was."""
    assert Lag(0, 0.0) == NO_LAG
    assert compute_lag(pending=0, unread=0, match_ratio=1.0, waited_s=99.0) == NO_LAG
    assert compute_lag(pending=0, unread=-5, match_ratio=1.0, waited_s=99.0) == NO_LAG
    assert compute_lag(pending=3, unread=-5, match_ratio=1.0, waited_s=1.5) == Lag(3, 1.5)
    assert compute_lag(pending=3, unread=1000, match_ratio=0.25, waited_s=2.0) == Lag(253, 2.0)
    assert compute_lag(pending=0, unread=1, match_ratio=1.0, waited_s=2.0) == Lag(1, 2.0)
    assert compute_lag(pending=1, unread=0, match_ratio=1.0, waited_s=-0.2) == Lag(1, 0.0)


@pytest.mark.parametrize(
    ("seconds", "was_lagging", "warning_s", "lags"),
    [(59.9, False, 60.0, False), (60.0, False, 60.0, True), (31.0, True, 60.0, True), (29.9, True, 60.0, False),
     (0.4, False, 0.5, False), (0.5, False, 0.5, True), (1e9, False, 0.0, False), (1e9, True, 0.0, False)],
)  # fmt: skip
def test_a_shard_lags_from_the_warning_on_until_half_of_it(
    seconds: float, was_lagging: bool, warning_s: float, lags: bool
) -> None:
    """A lag that stays near the limit does not start and end again and again."""
    assert is_lagging(Lag(1, seconds), was_lagging=was_lagging, warning_s=warning_s) is lags
