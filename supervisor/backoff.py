"""How long to wait before the next try."""

from __future__ import annotations

from typing import Literal, NamedTuple

Jitter = Literal["full", "none"]


class Backoff(NamedTuple):
    """Growing delays between tries.

    Attributes:
        initial_s: The first delay's bound.
        factor: What each next bound is multiplied by, at least 1.
        max_s: The largest bound.
        jitter: `full` draws the delay evenly between 0 and the bound, `none` takes the bound itself.
    """

    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0
    jitter: Jitter = "full"


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
