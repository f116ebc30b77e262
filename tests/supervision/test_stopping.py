"""How long a run that was told to stop is waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.leases import timing
from supervisor.supervision.stopping import GRACE_S, HURRIED_GRACE_S, Abandon, Cancel, Stop, WaitUntil, next_step

TOLD = Stop(told_s=100.0, limit_s=30.0, notices=False, in_flight=0, hurried_s=None, cancelled_s=None)


def test_who_cannot_notice_is_cancelled_at_once() -> None:
    """A service that never looked for its stop, and is inside of no database call, is not waited for."""
    assert next_step(TOLD, now_s=100.0) == Cancel()


def test_database_work_in_flight_is_waited_for() -> None:
    """A database call in flight gets the whole stop timeout, and the cancellation then."""
    busy = TOLD._replace(in_flight=1)
    assert next_step(busy, now_s=100.0) == WaitUntil(130.0)
    assert next_step(busy, now_s=130.0) == Cancel()


def test_who_notices_gets_its_time() -> None:
    """A worker that looks for its stop, or a tick, may finish by itself."""
    assert next_step(TOLD._replace(notices=True), now_s=100.0) == WaitUntil(130.0)
    assert next_step(TOLD._replace(notices=True), now_s=130.0) == Cancel()


def test_an_early_cancellation_leaves_the_rest_of_the_time() -> None:
    """What was cancelled early may use the whole stop timeout to put things in order."""
    cancelled = TOLD._replace(cancelled_s=100.0)
    assert next_step(cancelled, now_s=101.0) == WaitUntil(130.0)
    assert next_step(cancelled, now_s=130.0) == Abandon()


def test_a_late_cancellation_leaves_a_grace() -> None:
    """What was cancelled at its deadline gets a short grace, then it is left behind."""
    cancelled = TOLD._replace(cancelled_s=130.0)
    assert next_step(cancelled, now_s=130.0) == WaitUntil(130.0 + GRACE_S)
    assert next_step(cancelled, now_s=130.0 + GRACE_S) == Abandon()


def test_hurry_cancels_now() -> None:
    """After a second SIGTERM nothing is waited for, and a swallowed cancellation comes again."""
    hurried = TOLD._replace(notices=True, in_flight=3, hurried_s=105.0)
    assert next_step(hurried, now_s=105.0) == Cancel()
    assert next_step(hurried._replace(cancelled_s=101.0), now_s=105.0) == Cancel()
    assert next_step(hurried._replace(cancelled_s=105.0), now_s=105.0) == WaitUntil(105.0 + HURRIED_GRACE_S)
    assert next_step(hurried._replace(cancelled_s=105.0), now_s=106.0) == Abandon()


def test_a_lost_lease_cancels_now() -> None:
    """Without its lease nothing is waited for, not even a statement in flight, and the grace is short."""
    lost = TOLD._replace(notices=True, in_flight=3, lost_s=105.0)
    assert next_step(lost, now_s=105.0) == Cancel()
    assert next_step(lost._replace(cancelled_s=101.0), now_s=105.0) == Cancel()
    assert next_step(lost._replace(cancelled_s=105.0), now_s=105.0) == WaitUntil(105.0 + GRACE_S)
    assert next_step(lost._replace(cancelled_s=105.0), now_s=105.0 + GRACE_S) == Abandon()


def test_a_hurry_after_a_loss_shortens_the_grace() -> None:
    """A second SIGTERM counts for a run whose lease is lost too."""
    both = TOLD._replace(lost_s=105.0, hurried_s=106.0)
    assert next_step(both._replace(cancelled_s=105.0), now_s=106.0) == Cancel()
    assert next_step(both._replace(cancelled_s=106.0), now_s=106.0) == WaitUntil(106.0 + HURRIED_GRACE_S)


def test_the_grace_is_what_the_lease_leaves_for_it() -> None:
    """A cancelled run has as long as a lost lease waits for it before the process ends."""
    assert GRACE_S == timing.GRACE_S


_TIMES = st.none() | st.floats(100, 300)


@given(
    limit_s=st.floats(0, 100),
    notices=st.booleans(),
    in_flight=st.integers(0, 3),
    hurried_s=_TIMES,
    lost_s=_TIMES,
    start_s=st.floats(100, 1000),
)
def test_every_stop_ends(
    *, limit_s: float, notices: bool, in_flight: int, hurried_s: float | None, lost_s: float | None, start_s: float
) -> None:
    """A run that never ends is left behind by the limit and the grace, whatever it does."""
    stop, now_s = Stop(start_s, limit_s, notices, in_flight, None, None), start_s
    for _ in range(10):
        if hurried_s is not None and now_s >= hurried_s:
            stop = stop._replace(hurried_s=hurried_s)
        if lost_s is not None and now_s >= lost_s:
            stop = stop._replace(lost_s=lost_s)
        match next_step(stop, now_s=now_s):
            case WaitUntil(at_s):
                assert at_s > now_s
                now_s = at_s
            case Cancel():
                stop = stop._replace(cancelled_s=now_s)
            case Abandon():
                break
    else:
        raise AssertionError("it never ends")
    assert now_s <= start_s + limit_s + 2 * GRACE_S + HURRIED_GRACE_S + 0.001
