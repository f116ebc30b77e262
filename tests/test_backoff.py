"""How long to wait before the next try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.backoff import Backoff, bound, delay_s

policies = st.builds(
    Backoff,
    initial_s=st.floats(0.001, 60.0),
    factor=st.floats(1.0, 10.0),
    max_s=st.floats(0.001, 3600.0),
    jitter=st.sampled_from(["full", "none"]),
)


@pytest.mark.parametrize(
    ("attempt", "expected_s"), [(0, 0.25), (1, 0.5), (2, 1.0), (6, 16.0), (7, 30.0), (10**6, 30.0)]
)
def test_grows_up_to_its_largest(attempt: int, expected_s: float) -> None:
    """Each bound is the one before times the factor, and none is above the largest."""
    assert bound(Backoff(initial_s=0.25, factor=2.0, max_s=30.0), attempt) == expected_s


def test_delays_double_from_a_second_to_a_minute_by_default() -> None:
    """With full jitter, unless something else is said."""
    assert [bound(Backoff(), attempt) for attempt in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert delay_s(Backoff(), 0, 0.25) == 0.25


def test_full_jitter_spreads_a_delay_from_nothing_to_its_bound() -> None:
    """A thousand daemons do not return in one instant."""
    policy = Backoff(initial_s=4.0, jitter="full")
    assert [delay_s(policy, 0, sample) for sample in (0.0, 0.25, 0.999)] == [0.0, 1.0, 3.996]


def test_without_jitter_the_delay_is_the_bound() -> None:
    """The sample does not matter then."""
    policy = Backoff(initial_s=4.0, jitter="none")
    assert delay_s(policy, 0, 0.0) == delay_s(policy, 0, 0.9) == 4.0


@given(policies, st.integers(0, 10**9), st.floats(0.0, 1.0, exclude_max=True))
def test_a_delay_is_never_negative_nor_above_the_largest(policy: Backoff, attempt: int, sample: float) -> None:
    """Whatever the policy, the attempt and the sample are."""
    assert 0.0 <= delay_s(policy, attempt, sample) <= policy.max_s


@given(policies, st.integers(0, 10**6))
def test_a_bound_never_shrinks(policy: Backoff, attempt: int) -> None:
    """A later attempt waits at least as long as an earlier one may."""
    assert bound(policy, attempt) <= bound(policy, attempt + 1)
