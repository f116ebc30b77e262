"""The monitor's decisions: delays, limits, reminders, and what it takes to forget an outage."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.backoff import Backoff
from supervisor.config.model import ConnectPolicy
from supervisor.database.error_class import ErrorClass, Failure
from supervisor.database.monitor_policy import (
    DROPPED_MAX_S,
    MAX_LOGGED_RELAPSES,
    NEWSWORTHY_UP_S,
    FailureDecision,
    GiveUp,
    Outage,
    Retry,
    add_failure,
    begin_outage,
    begin_start,
    decide_after_failure,
    has_new_cause,
    is_stable,
    next_reminder,
    outage_after_loss,
    probe_delay_s,
)

if TYPE_CHECKING:
    from collections.abc import Callable

RUNTIME = ConnectPolicy()
STARTUP = ConnectPolicy(attempts=3, retry_refused=False)
COMING = (ErrorClass.STARTING_UP, ErrorClass.READ_ONLY)
BOUNDED_BY_THE_POLICY = [each for each in ErrorClass if each not in (*COMING, ErrorClass.DROPPED)]

classes = st.sampled_from(ErrorClass)
samples = st.floats(0.0, 1.0, exclude_max=True)
probe_intervals = st.floats(0.05, 60.0)


def failure(error_class: ErrorClass) -> Failure:
    return Failure(error_class, "reason", "db:5432", None, ValueError())


def failed(outage: Outage, *error_classes: ErrorClass) -> Outage:
    for error_class in error_classes:
        outage = add_failure(outage, failure(error_class))
    return outage


def judged(
    outage: Outage, error_class: ErrorClass, policy: ConnectPolicy = RUNTIME, *, probe: float = 1.0, sample: float = 1.0
) -> FailureDecision:
    """Count one more failure and judge it."""
    return decide_after_failure(
        failed(outage, error_class), failure(error_class), policy, probe_interval_s=probe, sample=sample
    )


def delay(outage: Outage, error_class: ErrorClass, *, probe: float = 1.0, sample: float = 1.0) -> float:
    verdict = judged(outage, error_class, probe=probe, sample=sample)
    assert isinstance(verdict, Retry)
    return verdict.delay_s


# Delays


@given(st.lists(classes, max_size=50), classes, st.integers(0, 50), samples, probe_intervals)
def test_a_delay_is_bounded_by_its_class(
    before: list[ErrorClass], error_class: ErrorClass, flaps: int, sample: float, probe: float
) -> None:
    """A server that is coming is asked about each interval, one that drops within 5 s, any other within `max`."""
    outage = failed(begin_outage(0.0), *before)._replace(flaps=flaps)
    delay_s = delay(outage, error_class, probe=probe, sample=sample)
    if error_class in COMING:
        assert 0.0 < delay_s <= 1.25 * probe
    elif error_class is ErrorClass.DROPPED:
        assert 0.0 <= delay_s <= DROPPED_MAX_S
    else:
        assert 0.0 <= delay_s <= RUNTIME.backoff.max_s


@pytest.mark.parametrize("error_class", BOUNDED_BY_THE_POLICY)
def test_delays_grow_to_the_policys_largest(error_class: ErrorClass) -> None:
    """Each failure of a class doubles its delay until `max`."""
    delays = [delay(failed(begin_outage(0.0), *[error_class] * count), error_class) for count in range(9)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_server_that_drops_is_tried_within_five_seconds() -> None:
    """A proxy before a dead server cannot be watched for a change, so its delays end at 5 s."""
    delays = [delay(failed(begin_outage(0.0), *[ErrorClass.DROPPED] * n), ErrorClass.DROPPED) for n in range(8)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


@pytest.mark.parametrize("error_class", COMING)
def test_a_server_that_is_coming_is_asked_steadily(error_class: ErrorClass) -> None:
    """After a few quick questions it is asked once in an interval, however long it takes."""
    outage = begin_outage(0.0)
    assert delay(outage, error_class) < 0.25
    long = failed(outage, *[error_class] * 1000)
    assert [delay(long, error_class, sample=sample) for sample in (0.0, 0.5, 1.0)] == [0.75, 1.0, 1.25]


def test_the_first_questions_to_a_server_that_is_coming_come_quickly() -> None:
    """A restart takes about a second, so the distances begin well below one and grow to the interval."""
    outage = begin_outage(0.0)
    delays = [
        delay(failed(outage, *[ErrorClass.STARTING_UP] * count), ErrorClass.STARTING_UP, sample=0.5)
        for count in range(7)
    ]
    assert delays == pytest.approx([0.15, 0.225, 0.3375, 0.50625, 0.759375, 1.0, 1.0])


def test_each_class_grows_its_own_delays() -> None:
    """A server that has been coming for long is not late when it refuses once in between."""
    outage = failed(begin_outage(0.0), *[ErrorClass.STARTING_UP] * 100)
    assert delay(outage, ErrorClass.NOT_LISTENING) == 0.25


def test_flapping_keeps_the_grown_delays() -> None:
    """Each recovery that did not last grows the delays as a failure does; none resets them."""
    outage = lost(None, 0.0)
    delays = []
    for turn in range(8):
        delays.append(delay(outage, ErrorClass.DROPPED))
        outage = lost(outage, float(turn))
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


# Limits


@given(st.lists(classes, max_size=60), st.integers(1, 5), samples)
def test_a_server_that_is_coming_uses_up_no_attempts(answers: list[ErrorClass], attempts: int, sample: float) -> None:
    """The start gives up at its limit of attempts, and never because of a server that says that it is coming."""
    policy = ConnectPolicy(attempts=attempts)
    outage, counted = begin_outage(0.0), 0
    for answer in answers:
        verdict = judged(outage, answer, policy, sample=sample)
        outage = failed(outage, answer)
        counted += answer not in COMING
        assert (verdict == GiveUp.ATTEMPTS_USED_UP) == (answer not in COMING and counted >= attempts)


def test_the_counts_are_kept_by_class() -> None:
    """What is logged at the end is the number of failed attempts, and for a limit only those that count."""
    outage = failed(begin_outage(0.0), ErrorClass.NOT_LISTENING, ErrorClass.STARTING_UP, ErrorClass.NOT_LISTENING)
    assert (outage.attempts, dict(outage.failures)) == (2, {ErrorClass.NOT_LISTENING: 2, ErrorClass.STARTING_UP: 1})


@pytest.mark.parametrize(
    ("error_class", "at_start"),
    [(ErrorClass.ACCESS_DENIED, GiveUp.ACCESS_DENIED), (ErrorClass.MISCONFIGURED, GiveUp.MISCONFIGURED)],
)
def test_a_refusal_ends_the_start_and_nothing_else(error_class: ErrorClass, at_start: FailureDecision) -> None:
    """At the start it is said plainly at the first attempt; at run time, or if asked to, it is tried again."""
    assert judged(begin_outage(0.0), error_class, STARTUP) == at_start
    assert isinstance(judged(begin_outage(0.0), error_class, RUNTIME), Retry)
    assert isinstance(judged(begin_outage(0.0), error_class, STARTUP._replace(retry_refused=True)), Retry)


def test_no_limit_means_for_ever() -> None:
    """`attempts = 0` never gives up."""
    outage = failed(begin_outage(0.0), *[ErrorClass.TIMED_OUT] * 5000)
    assert isinstance(judged(outage, ErrorClass.TIMED_OUT), Retry)


# Losing again


def lost(
    outage: Outage | None, now_s: float, *, up_for_s: float = 0.5, cause: ErrorClass = ErrorClass.DROPPED
) -> Outage:
    return outage_after_loss(outage, now_s, up_for_s=up_for_s, cause=cause)


def test_the_outage_after_a_rough_start_counts_from_its_own_beginning() -> None:
    """A start that had failures makes the next outage wary, but adds neither time nor attempts to it."""
    rough = failed(begin_outage(0.0), *[ErrorClass.NOT_LISTENING] * 4)
    outage = lost(rough, 50.0)
    assert (outage.since_s, outage.attempts, outage.flaps, outage.was_logged) == (50.0, 0, 0, True)
    assert next_reminder(outage, 64.0) is None
    assert delay(outage, ErrorClass.NOT_LISTENING) == 4.0


def test_a_start_that_was_never_logged_is_no_relapse() -> None:
    """Relapses are counted from the first outage on that the journal knows of."""
    assert lost(failed(begin_start(0.0), ErrorClass.NOT_LISTENING), 5.0).relapses == 0
    assert lost(lost(None, 0.0), 5.0, up_for_s=4.0).relapses == 1


def test_three_relapses_of_a_server_that_flaps_are_logged() -> None:
    """A recovery of three seconds and its end are news three times, a shorter one never."""
    first = failed(lost(None, 0.0), ErrorClass.NOT_LISTENING)
    assert lost(first, 10.0, up_for_s=2.9).flaps == 1
    outage, logged = first, 0
    for number in range(1, 10):
        outage = lost(outage, number * 10.0, up_for_s=3.0)
        logged += outage.since_s == number * 10.0
    assert logged == 3


def test_a_loss_after_a_recovery_goes_on_with_the_same_outage() -> None:
    """Its beginning, its schedule of entries and its counts stay."""
    first = failed(lost(None, 0.0), ErrorClass.NOT_LISTENING)
    again = lost(first, 9.0, up_for_s=2.9)
    assert again == first._replace(flaps=1)


def test_a_recovery_that_held_for_a_while_ends_as_news() -> None:
    """The next loss is an outage of its own, with the delays of the one before; of many such, only the first ones."""
    outage = failed(lost(None, 0.0), ErrorClass.NOT_LISTENING, ErrorClass.NOT_LISTENING)
    for number in range(1, MAX_LOGGED_RELAPSES + 1):
        outage = lost(outage, number * 10.0, up_for_s=NEWSWORTHY_UP_S)
        assert (outage.since_s, outage.flaps, outage.relapses) == (number * 10.0, 0, number)
        assert delay(outage, ErrorClass.NOT_LISTENING) == 1.0
    assert lost(outage, 90.0, up_for_s=NEWSWORTHY_UP_S).flaps == 1


@pytest.mark.parametrize(("cause", "is_news"), [(ErrorClass.ACCESS_DENIED, True), (ErrorClass.DROPPED, False)])
def test_a_cause_that_a_person_must_mend_is_news_at_once(cause: ErrorClass, is_news: bool) -> None:
    """A changed password right after a recovery is logged, a further drop is not."""
    outage = failed(lost(None, 0.0), ErrorClass.NOT_LISTENING)
    assert (lost(outage, 1.0, up_for_s=0.1, cause=cause).flaps == 0) is is_news
    assert has_new_cause(failed(outage, cause), cause) is is_news
    assert not has_new_cause(failed(outage, cause, cause), cause)


def test_the_cause_that_an_outage_begins_with_is_not_a_new_one() -> None:
    """The first failure is logged as the outage itself."""
    assert not has_new_cause(failed(begin_outage(0.0), ErrorClass.ACCESS_DENIED), ErrorClass.ACCESS_DENIED)


# Entries


@given(st.floats(0.0, 1e7), st.floats(0.01, 60.0))
def test_reminders_grow_with_the_logarithm_of_the_outage(length_s: float, turn_s: float) -> None:
    """An outage of any length, attempted at any pace, is logged about log2 of its length in quarter minutes."""
    outage, logged, now_s = begin_outage(0.0), 0, 0.0
    for _ in range(2000):
        now_s += max(turn_s, length_s / 2000)
        if now_s > length_s:
            break
        if (due := next_reminder(outage, now_s)) is not None:
            outage, logged = due, logged + 1
    assert logged <= math.log2(max(1.0, length_s / 15.0)) + 1


def reminders(outage: Outage, until_s: int) -> list[float]:
    """When an outage is logged again, checked ten times a second from its beginning."""
    found = []
    for tick in range(until_s * 10):
        if (due := next_reminder(outage, tick / 10)) is not None:
            outage = due
            found.append(tick / 10)
    return found


def test_an_outage_is_logged_after_a_quarter_minute_and_then_at_doubled_distances() -> None:
    """The distances are 15 s, 30 s, 60 s and so on."""
    assert reminders(begin_outage(0.0), 300) == [15.0, 45.0, 105.0, 225.0]


def test_a_start_that_waits_is_logged_after_a_second() -> None:
    """An operator watches a start; after the first entry the distances are those of any outage."""
    assert reminders(begin_start(0.0), 300) == [1.0, 16.0, 46.0, 106.0, 226.0]


def test_ten_minutes_away_are_five_reminders() -> None:
    """With the loss, the recovery and the workers' two that is nine entries, of any number of workers."""
    for seed in range(20):
        assert simulate(ErrorClass.NOT_LISTENING, 600.0, seed).reminders == 5


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_server_is_not_pestered(error_class: ErrorClass) -> None:
    """Attempts and cheap checks together are about forty in the first half minute, whatever the server does."""
    for seed in range(20):
        seen = simulate(error_class, 30.0, seed)
        assert seen.attempts + seen.checks <= 45


def test_a_server_that_comes_back_is_noticed_within_about_a_second() -> None:
    """However old the outage is, the next probe or attempt is at most two intervals away."""
    for seed in range(5):
        assert simulate(ErrorClass.TIMED_OUT, 7200.0, seed).longest_s <= 2.0


@given(st.floats(0.0, 1e6), samples, probe_intervals, st.floats(0.0, 60.0))
def test_the_next_probe_is_never_after_the_next_attempt(
    age_s: float, sample: float, probe: float, left_s: float
) -> None:
    """And it is soon while the outage is young, and no sooner than a tenth of a second."""
    next_s = probe_delay_s(
        begin_outage(1000.0), now_s=1000.0 + age_s, due_s=1000.0 + age_s + left_s, probe_interval_s=probe, sample=sample
    )
    assert 0.0 <= next_s <= max(0.0, left_s) + 1e-6
    assert next_s <= 1.8 * probe
    assert next_s >= min(left_s, 0.8 * min(probe, 0.1)) - 1e-6


@pytest.mark.parametrize(
    ("age_s", "sample", "next_s"),
    [
        (0.0, 0.5, 0.1),
        (0.0, 0.0, 0.08),
        (1.0, 0.5, 0.4),
        (2.0, 0.5, 0.8),
        (2.0, 1.0, 0.96),
        (100.0, 0.0, 0.8),
        (100.0, 0.5, 1.0),
        (100.0, 1.0, 1.2),
    ],
)
def test_the_next_probe_comes_after_a_part_of_the_outages_age(age_s: float, sample: float, next_s: float) -> None:
    """In a young outage a probe is sent ten times a second, in an old one once in an interval, give or take a fifth."""
    now_s = 1000.0 + age_s
    found = probe_delay_s(begin_outage(1000.0), now_s=now_s, due_s=now_s + 99.0, probe_interval_s=1.0, sample=sample)
    assert found == pytest.approx(next_s)


@pytest.mark.parametrize(("left_s", "next_s"), [(-1.0, 0.0), (1.5, 1.5), (1.6, 1.0)])
def test_an_attempt_that_is_due_soon_replaces_the_probe(left_s: float, next_s: float) -> None:
    """A probe that would come shortly before the attempt is left out."""
    outage = begin_outage(1000.0)
    found = probe_delay_s(outage, now_s=1100.0, due_s=1100.0 + left_s, probe_interval_s=1.0, sample=0.5)
    assert found == next_s


# Forgetting


@pytest.mark.parametrize(
    ("up_for_s", "has_worked", "proven"),
    [(9.9, True, False), (10.0, True, True), (10.0, False, False), (59.9, False, False), (60.0, False, True)],
)
def test_only_a_while_with_work_forgets_an_outage(up_for_s: float, has_worked: bool, proven: bool) -> None:
    """A connection that stands proves little; work on it proves more; without any worker time alone has to do."""
    assert is_stable(up_for_s, has_worked=has_worked) is proven


class Seen(NamedTuple):
    attempts: int
    checks: int
    reminders: int
    longest_s: float


def simulate(error_class: ErrorClass, length_s: float, seed: int) -> Seen:
    """Live through an outage as the monitor does, on a clock of numbers."""
    sample: Callable[[], float] = Random(seed).random
    outage, now_s, seen = lost(None, 0.0), 0.0, Seen(0, 0, 0, 0.0)
    policy = ConnectPolicy(backoff=Backoff(initial_s=0.25, max_s=30.0))
    while now_s < length_s:
        outage = failed(outage, error_class)
        seen = seen._replace(attempts=seen.attempts + 1)
        if (due := next_reminder(outage, now_s)) is not None:
            outage, seen = due, seen._replace(reminders=seen.reminders + 1)
        verdict = decide_after_failure(outage, failure(error_class), policy, probe_interval_s=1.0, sample=sample())
        assert isinstance(verdict, Retry)
        due_s = now_s + verdict.delay_s
        while now_s < min(due_s, length_s):
            next_s = probe_delay_s(outage, now_s=now_s, due_s=due_s, probe_interval_s=1.0, sample=sample())
            now_s += next_s
            seen = seen._replace(checks=seen.checks + (now_s < due_s), longest_s=max(seen.longest_s, next_s))
    return seen
