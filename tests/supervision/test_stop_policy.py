"""How long a run that was asked to stop is waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.leases import timing
from supervisor.supervision.stop_policy import (
    FORCED_GRACE_S,
    GRACE_S,
    StopAction,
    StopProgress,
    WaitUntil,
    next_stop_action,
)

REQUESTED = StopProgress(
    requested_s=100.0, timeout_s=30.0, is_cooperative=False, in_flight=0, forced_since_s=None, cancelled_s=None
)


def test_an_uncooperative_run_is_cancelled_at_once() -> None:
    """A service that never looked for its stop, and is inside of no database call, is not waited for."""
    assert next_stop_action(REQUESTED, now_s=100.0) == StopAction.CANCEL


def test_database_work_in_flight_is_waited_for() -> None:
    """A database call in flight gets the whole stop timeout, and the cancellation then."""
    busy = REQUESTED._replace(in_flight=1)
    assert next_stop_action(busy, now_s=100.0) == WaitUntil(130.0)
    assert next_stop_action(busy, now_s=130.0) == StopAction.CANCEL


def test_a_cooperative_run_gets_its_time() -> None:
    """A worker that looks for its stop, or a tick, may finish by itself."""
    assert next_stop_action(REQUESTED._replace(is_cooperative=True), now_s=100.0) == WaitUntil(130.0)
    assert next_stop_action(REQUESTED._replace(is_cooperative=True), now_s=130.0) == StopAction.CANCEL


def test_an_early_cancellation_leaves_the_rest_of_the_time() -> None:
    """What was cancelled early may use the whole stop timeout to put things in order."""
    cancelled = REQUESTED._replace(cancelled_s=100.0)
    assert next_stop_action(cancelled, now_s=101.0) == WaitUntil(130.0)
    assert next_stop_action(cancelled, now_s=130.0) == StopAction.ABANDON


def test_a_late_cancellation_leaves_a_grace() -> None:
    """What was cancelled at its deadline gets a short grace, then it is abandoned."""
    cancelled = REQUESTED._replace(cancelled_s=130.0)
    assert next_stop_action(cancelled, now_s=130.0) == WaitUntil(130.0 + GRACE_S)
    assert next_stop_action(cancelled, now_s=130.0 + GRACE_S) == StopAction.ABANDON


def test_a_forced_stop_cancels_now() -> None:
    """After a second SIGTERM nothing is waited for, and a swallowed cancellation comes again."""
    forced = REQUESTED._replace(is_cooperative=True, in_flight=3, forced_since_s=105.0)
    assert next_stop_action(forced, now_s=105.0) == StopAction.CANCEL
    assert next_stop_action(forced._replace(cancelled_s=101.0), now_s=105.0) == StopAction.CANCEL
    assert next_stop_action(forced._replace(cancelled_s=105.0), now_s=105.0) == WaitUntil(105.0 + FORCED_GRACE_S)
    assert next_stop_action(forced._replace(cancelled_s=105.0), now_s=106.0) == StopAction.ABANDON


def test_a_lost_lease_cancels_now() -> None:
    """Without its lease nothing is waited for, not even a statement in flight, and the grace is short."""
    lost = REQUESTED._replace(is_cooperative=True, in_flight=3, lease_lost_s=105.0)
    assert next_stop_action(lost, now_s=105.0) == StopAction.CANCEL
    assert next_stop_action(lost._replace(cancelled_s=101.0), now_s=105.0) == StopAction.CANCEL
    assert next_stop_action(lost._replace(cancelled_s=105.0), now_s=105.0) == WaitUntil(105.0 + GRACE_S)
    assert next_stop_action(lost._replace(cancelled_s=105.0), now_s=105.0 + GRACE_S) == StopAction.ABANDON


def test_a_forced_stop_after_a_loss_shortens_the_grace() -> None:
    """A second SIGTERM counts for a run whose lease is lost too."""
    both = REQUESTED._replace(lease_lost_s=105.0, forced_since_s=106.0)
    assert next_stop_action(both._replace(cancelled_s=105.0), now_s=106.0) == StopAction.CANCEL
    assert next_stop_action(both._replace(cancelled_s=106.0), now_s=106.0) == WaitUntil(106.0 + FORCED_GRACE_S)


def test_the_grace_is_what_the_lease_leaves_for_it() -> None:
    """A cancelled run has as long as a lost lease waits for it before the process ends."""
    assert GRACE_S == timing.GRACE_S


_TIMES = st.none() | st.floats(100, 300)


@given(
    timeout_s=st.floats(0, 100),
    is_cooperative=st.booleans(),
    in_flight=st.integers(0, 3),
    forced_since_s=_TIMES,
    lease_lost_s=_TIMES,
    start_s=st.floats(100, 1000),
)
def test_every_stop_ends(
    *,
    timeout_s: float,
    is_cooperative: bool,
    in_flight: int,
    forced_since_s: float | None,
    lease_lost_s: float | None,
    start_s: float,
) -> None:
    """A run that never ends is abandoned after its timeout and the grace, whatever it does."""
    stop, now_s = StopProgress(start_s, timeout_s, is_cooperative, in_flight, None, None), start_s
    for _ in range(10):
        if forced_since_s is not None and now_s >= forced_since_s:
            stop = stop._replace(forced_since_s=forced_since_s)
        if lease_lost_s is not None and now_s >= lease_lost_s:
            stop = stop._replace(lease_lost_s=lease_lost_s)
        match next_stop_action(stop, now_s=now_s):
            case WaitUntil(at_s):
                assert at_s > now_s
                now_s = at_s
            case StopAction.CANCEL:
                stop = stop._replace(cancelled_s=now_s)
            case StopAction.ABANDON:
                break
    else:
        raise AssertionError("it never ends")
    assert now_s <= start_s + timeout_s + 2 * GRACE_S + FORCED_GRACE_S + 0.001
