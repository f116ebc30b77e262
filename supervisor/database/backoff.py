"""How long to wait before the next try."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.config.model import Backoff


def delay_s(policy: Backoff, attempt: int, sample: float) -> float:
    """Return the delay after the failed try number `attempt`.

    Args:
        policy: The growth and its bounds.
        attempt: Failed tries before this one, counted from 0.
        sample: A number drawn evenly from [0, 1); full jitter spreads the delay by it, so that a
            thousand daemons do not return in one instant.
    """
    bound_s = bound(policy, attempt)
    return bound_s * sample if policy.jitter == "full" else bound_s


def bound(policy: Backoff, attempt: int) -> float:
    """Return the largest delay after the failed try number `attempt`, in seconds."""
    try:
        grown_s = policy.initial_s * policy.factor**attempt
    except OverflowError:
        return policy.max_s
    return min(policy.max_s, grown_s)
