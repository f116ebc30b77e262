"""The restart policy as tables and properties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.workers import periodic, projection, service

from supervisor.backoff import Backoff
from supervisor.supervision.restart_policy import (
    Exhausted,
    NoRestart,
    RestartAfter,
    RestartHistory,
    ResumeAfterOutage,
    RunOutcome,
    decide_restart,
    on_run_started,
)

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.restart_policy import Decision

RETURNED, FAILED, OUTAGE = RunOutcome.RETURNED, RunOutcome.FAILED, RunOutcome.OUTAGE


@pytest.mark.parametrize(
    ("restart", "outcome", "of_service", "of_periodic"),
    [
        ("always", RETURNED, RestartAfter(1.0, 1), NoRestart.NEXT_TICK),
        ("always", FAILED, RestartAfter(1.0, 1), RestartAfter(1.0, 1)),
        ("always", OUTAGE, ResumeAfterOutage(0.05), ResumeAfterOutage(0.05)),
        ("on-failure", RETURNED, NoRestart.FINISHED, NoRestart.NEXT_TICK),
        ("on-failure", FAILED, RestartAfter(1.0, 1), RestartAfter(1.0, 1)),
        ("on-failure", OUTAGE, ResumeAfterOutage(0.05), ResumeAfterOutage(0.05)),
        ("never", RETURNED, NoRestart.FINISHED, NoRestart.NEXT_TICK),
        ("never", FAILED, NoRestart.FAILED, NoRestart.FAILED),
        ("never", OUTAGE, ResumeAfterOutage(0.05), ResumeAfterOutage(0.05)),
    ],
)
def test_every_ending_under_every_policy(
    restart: str, outcome: RunOutcome, of_service: Decision, of_periodic: Decision
) -> None:
    """What follows an outcome is what the contract's words say, for both kinds."""
    for spec, expected in ((service(restart=restart), of_service), (periodic(restart=restart), of_periodic)):
        history = on_run_started(spec, RestartHistory(), now_s=0.0)
        assert decide_restart(spec, history, outcome, now_s=1.0, sample=1.0)[0] == expected


@pytest.mark.parametrize("restart", ["always", "on-failure", "never"])
def test_a_halted_projection_is_not_started_again(restart: str) -> None:
    """Poison ends a projection whatever its restart policy says, and uses up none of its restarts."""
    spec = projection(restart=restart)
    history = on_run_started(spec, RestartHistory(), now_s=0.0)
    decision, after = decide_restart(spec, history, RunOutcome.HALTED, now_s=1.0, sample=1.0)
    assert decision == NoRestart.FAILED
    assert after.restarts_s == ()


def crash(spec: WorkerSpec, times_s: list[float], *, runs_s: float = 0.0) -> list[Decision]:
    """Return the decisions after crashes at these times, each after a run of `runs_s`."""
    history, decisions = RestartHistory(), []
    for now_s in times_s:
        history = on_run_started(spec, history, now_s=now_s - runs_s)
        decision, history = decide_restart(spec, history, FAILED, now_s=now_s, sample=1.0)
        decisions.append(decision)
    return decisions


def test_one_restart_more_than_allowed_exhausts() -> None:
    """`max_restarts` restarts are made within the window; the next outcome is the last."""
    decisions = crash(service(max_restarts=3, window_s=300.0), [1.0, 2.0, 3.0, 4.0])
    assert [type(decision) for decision in decisions] == [RestartAfter, RestartAfter, RestartAfter, Exhausted]
    assert decisions[-1] == Exhausted(restarts=3)


def test_restarts_outside_the_window_are_forgotten() -> None:
    """A worker that fails less often than the window allows runs for ever."""
    decisions = crash(service(max_restarts=1, window_s=10.0), [n * 11.0 for n in range(50)])
    assert all(isinstance(decision, RestartAfter) for decision in decisions)


def test_no_restarts_allowed() -> None:
    """With `max_restarts = 0` the first failure exhausts."""
    assert crash(service(max_restarts=0), [1.0]) == [Exhausted(restarts=0)]


def test_short_runs_keep_the_backoff_growing() -> None:
    """Starting well is no success: a run of nine seconds does not reset the backoff."""
    spec = service(max_restarts=100, backoff=Backoff(initial_s=1.0, max_s=60.0))
    delays_s = [d.delay_s for d in crash(spec, [n * 20.0 for n in range(8)], runs_s=9.0) if isinstance(d, RestartAfter)]
    assert delays_s == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_sustained_run_resets_the_backoff() -> None:
    """A run as long as ten seconds and the last backoff's bound begins the backoff anew."""
    spec = service(max_restarts=100, backoff=Backoff(initial_s=1.0, max_s=60.0))
    decisions = crash(spec, [0.0, 1.0, 2.0]) + crash(spec, [100.0], runs_s=10.0)
    assert decisions[-1] == RestartAfter(1.0, 1)


def test_a_run_shorter_than_its_long_backoff_resets_nothing() -> None:
    """Behind a backoff of a minute, half a minute of running proves nothing."""
    spec = service(max_restarts=100, window_s=1e6, backoff=Backoff(initial_s=60.0, max_s=600.0))
    delays_s = [d.delay_s for d in crash(spec, [0.0, 100.0, 300.0], runs_s=30.0) if isinstance(d, RestartAfter)]
    assert delays_s == [60.0, 120.0, 240.0]


@pytest.mark.parametrize(
    ("failures", "last_delay_s"),
    [(1, 20.0), (2, 40.0), (3, 80.0), (9, 300.0)],
    ids=["first", "second", "third", "most"],
)
def test_a_run_as_long_as_the_delay_before_it_resets_the_backoff(failures: int, last_delay_s: float) -> None:
    """A run resets the delays from the length of the last delay on, and not a moment before."""
    spec = service(max_restarts=100, backoff=Backoff(initial_s=20.0, max_s=300.0))
    for ran_s, is_reset in ((last_delay_s - 0.1, False), (last_delay_s, True)):
        history = on_run_started(spec, RestartHistory(consecutive_failures=failures), now_s=50.0)
        decision, after = decide_restart(spec, history, FAILED, now_s=50.0 + ran_s, sample=1.0)
        assert decision == RestartAfter(20.0 if is_reset else min(300.0, last_delay_s * 2), restarts=1)
        assert after.consecutive_failures == (1 if is_reset else failures + 1)


def test_a_run_of_ten_seconds_is_the_shortest_that_resets_a_short_backoff() -> None:
    """Behind delays of milliseconds it is still ten seconds of running that reset them."""
    spec = service(max_restarts=100, backoff=Backoff(initial_s=0.001, max_s=60.0))
    for ran_s, failures in ((9.9, 4), (10.0, 1)):
        history = on_run_started(spec, RestartHistory(consecutive_failures=3), now_s=50.0)
        assert decide_restart(spec, history, FAILED, now_s=50.0 + ran_s, sample=1.0)[1].consecutive_failures == failures


@pytest.mark.parametrize(("ran_s", "delay_s"), [(9.9, 0.4), (10.0, 0.05)])
def test_a_run_of_ten_seconds_resets_the_delays_after_outages(ran_s: float, delay_s: float) -> None:
    """Outages that are ten seconds of work apart are not counted together."""
    spec = service()
    history = on_run_started(spec, RestartHistory(consecutive_outages=3), now_s=50.0)
    assert decide_restart(spec, history, OUTAGE, now_s=50.0 + ran_s, sample=1.0)[0] == ResumeAfterOutage(delay_s)


def test_a_service_is_well_from_its_start_and_a_tick_once_it_has_succeeded() -> None:
    """A tick that begins proves nothing, and one that succeeds later keeps the time of the first success."""
    assert on_run_started(service(), RestartHistory(), now_s=5.0).healthy_since_s == 5.0
    spec = periodic()
    history = on_run_started(spec, RestartHistory(), now_s=5.0)
    assert history.healthy_since_s is None
    for now_s in (6.0, 8.0):
        _, history = decide_restart(spec, history, RETURNED, now_s=now_s, sample=1.0)
        assert history.healthy_since_s == 6.0


@pytest.mark.parametrize(("later_s", "follows"), [(10.0, Exhausted(1)), (10.1, RestartAfter(2.0, restarts=1))])
def test_a_restart_counts_up_to_the_end_of_the_window(later_s: float, follows: Decision) -> None:
    """A restart at the very end of the window is still inside, and one before it is forgotten."""
    assert crash(service(max_restarts=1, window_s=10.0), [1.0, 1.0 + later_s])[-1] == follows


def test_a_tick_that_succeeds_once_resets_nothing_yet() -> None:
    """A periodic worker that fails every other second tick keeps growing delays; a good while resets them."""
    spec, history = periodic(max_restarts=100), RestartHistory()
    delays_s = []
    for now_s, outcome in [(0.0, FAILED), (2.0, RETURNED), (4.0, FAILED), (6.0, RETURNED), (16.0, FAILED)]:
        decision, history = decide_restart(spec, history, outcome, now_s=now_s, sample=1.0)
        if isinstance(decision, RestartAfter):
            delays_s.append(decision.delay_s)
    assert delays_s == [1.0, 2.0, 1.0]


def test_an_outage_that_ends_runs_quickly_waits_longer_each_time() -> None:
    """A worker that ends again and again because of an outage that is over does not spin."""
    spec, history, delays_s = service(), RestartHistory(), []
    for n in range(10):
        history = on_run_started(spec, history, now_s=float(n))
        decision, history = decide_restart(spec, history, OUTAGE, now_s=float(n), sample=1.0)
        assert isinstance(decision, ResumeAfterOutage)
        delays_s.append(decision.delay_s)
    assert delays_s[:3] == [0.05, 0.1, 0.2]
    assert delays_s[-1] == 5.0


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.sampled_from(RunOutcome)), max_size=60),
    st.integers(0, 5),
    st.floats(0, 600),
    st.booleans(),
)
def test_never_more_restarts_than_allowed(
    steps: list[tuple[float, RunOutcome]], most: int, window_s: float, is_service: bool
) -> None:
    """Whatever happens when, no window ever holds more restarts than the policy allows, and outages count nothing."""
    make = service if is_service else periodic
    spec, history, now_s, restarts_s = make(max_restarts=most, window_s=window_s), RestartHistory(), 0.0, []
    for pause_s, outcome in steps:
        history = on_run_started(spec, history, now_s=now_s)
        now_s += pause_s
        decision, history = decide_restart(spec, history, outcome, now_s=now_s, sample=0.5)
        if outcome is OUTAGE:
            assert isinstance(decision, ResumeAfterOutage)
        if isinstance(decision, RestartAfter):
            restarts_s.append(now_s)
            assert sum(1 for at_s in restarts_s if now_s - at_s <= window_s) == decision.restarts <= most
        if isinstance(decision, Exhausted):
            return


@given(st.integers(0, 40), st.floats(0, 1))
def test_the_delay_stays_within_the_backoff(crashes: int, sample: float) -> None:
    """No restart waits longer than the policy's largest bound."""
    spec, history = service(max_restarts=1000), RestartHistory()
    for n in range(crashes + 1):
        decision, history = decide_restart(spec, history, FAILED, now_s=float(n), sample=sample)
        assert isinstance(decision, RestartAfter)
        assert 0.0 <= decision.delay_s <= spec.backoff.max_s
