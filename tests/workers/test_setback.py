"""What follows when a batch could not be applied."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import TransactionMisused
from supervisor.workers.setback import (
    TRIES_ALONE,
    TRIES_CUT,
    TRIES_TRANSIENT,
    Again,
    Cause,
    GiveUp,
    Halve,
    Poison,
    Tries,
    cause_of,
    grown,
    judge,
)


def _error(sqlstate: str) -> asyncpg.PostgresError:
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": sqlstate, "M": "no"})
    return error


def _wrapped(error: BaseException) -> BaseException:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    return ExceptionGroup("several", [ValueError("another"), wrapped])


@pytest.mark.parametrize(
    ("error", "facts", "cause"),
    [
        (ValueError(), "handler", Cause.HANDLER),
        (ValueError(), "", Cause.READING),
        (OSError(), "outage handler", Cause.OUTAGE),
        (_error("40P01"), "outage handler", Cause.OUTAGE),
        (OSError(), "cut handler", Cause.CUT),
        (OSError(), "cut", Cause.CUT),
        (_error("40001"), "handler", Cause.TRANSIENT),
        (_error("40P01"), "cut handler", Cause.TRANSIENT),
        (_error("55P03"), "handler", Cause.TRANSIENT),
        (_error("53300"), "handler", Cause.TRANSIENT),
        (_error("53100"), "", Cause.TRANSIENT),
        (_error("58030"), "handler", Cause.TRANSIENT),
        (_error("25006"), "handler", Cause.MISUSE),
        (_error("23505"), "handler", Cause.HANDLER),
        (_error("57014"), "handler", Cause.HANDLER),
        (TransactionMisused(), "handler", Cause.MISUSE),
        (TransactionMisused(), "cut handler", Cause.MISUSE),
        (_wrapped(_error("40P01")), "handler", Cause.TRANSIENT),
        (_wrapped(TransactionMisused()), "handler", Cause.MISUSE),
        (_wrapped(KeyError()), "handler", Cause.HANDLER),
    ],
)
def test_why_a_batch_was_not_applied(error: BaseException, facts: str, cause: Cause) -> None:
    """An outage explains everything; then what the handler did wrong, what passes, and only then the handler itself."""
    found = cause_of(error, is_outage="outage" in facts, is_cut="cut" in facts, is_handlers="handler" in facts)
    assert found is cause


def test_an_error_that_is_its_own_cause_ends_the_search() -> None:
    """Causes in a circle are looked through once."""
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    assert cause_of(first, is_outage=False, is_cut=False, is_handlers=True) is Cause.HANDLER


def test_an_error_that_is_met_twice_hides_no_other() -> None:
    """The search goes on behind an error that was seen before."""
    twice = ValueError()
    group = ExceptionGroup("several", [_error("40P01"), twice, twice])
    assert cause_of(group, is_outage=False, is_cut=False, is_handlers=True) is Cause.TRANSIENT


@pytest.mark.parametrize(("depth", "cause"), [(999, Cause.TRANSIENT), (1000, Cause.HANDLER)])
def test_the_search_for_a_cause_ends_after_a_thousand_errors(depth: int, cause: Cause) -> None:
    """Nothing that a handler raises can keep the loop for long."""
    error: BaseException = _error("40P01")
    for _ in range(depth):
        outer = ValueError()
        outer.__cause__ = error
        error = outer
    assert cause_of(error, is_outage=False, is_cut=False, is_handlers=True) is cause


def test_a_failing_event_is_tried_again_alone_with_growing_delays() -> None:
    """Three times more, then it is poison."""
    tries, delays = Tries(), []
    for _ in range(TRIES_ALONE):
        decision, tries = judge(Cause.HANDLER, tries, count=1, sample=0.5)
        assert isinstance(decision, Again)
        delays.append(decision.delay_s)
    assert delays == pytest.approx([0.1, 0.4, 1.6])
    assert judge(Cause.HANDLER, tries, count=1, sample=0.5)[0] == Poison()


@pytest.mark.parametrize("cause", [Cause.OUTAGE, Cause.MISUSE, Cause.READING])
def test_some_causes_end_the_run(cause: Cause) -> None:
    """Nothing is split, nothing is tried again: others decide."""
    assert judge(cause, Tries(), count=100, sample=0.5) == (GiveUp(), Tries())


def test_what_passes_is_waited_for_and_then_given_up() -> None:
    """The same batch again, never a smaller one."""
    tries, delays = Tries(), []
    for _ in range(TRIES_TRANSIENT):
        decision, tries = judge(Cause.TRANSIENT, tries, count=100, sample=1.0)
        assert isinstance(decision, Again)
        delays.append(decision.delay_s)
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert judge(Cause.TRANSIENT, tries, count=100, sample=1.0)[0] == GiveUp()


def test_a_connection_that_is_always_ended_counts_as_the_handlers_failure_in_the_end() -> None:
    """At first somebody else may have ended it; where the handler had not begun it never is its doing."""
    tries, delays = Tries(), []
    for _ in range(TRIES_CUT):
        decision, tries = judge(Cause.CUT, tries, count=8, sample=1.0)
        assert isinstance(decision, Again)
        delays.append(decision.delay_s)
    assert delays == [0.05, 0.1, 0.2]
    assert judge(Cause.CUT, tries, count=8, sample=1.0)[0] == Halve(4)
    assert judge(Cause.CUT, tries, count=0, sample=1.0)[0] == GiveUp()


@pytest.mark.parametrize(("size", "batch", "next_size"), [(1, 100, 2), (3, 100, 6), (50, 100, 100), (60, 100, 100)])
def test_after_a_success_twice_as_many_are_tried(size: int, batch: int, next_size: int) -> None:
    """The way back to a whole batch is as short as the way down."""
    assert grown(size, batch) == next_size


@given(batch=st.integers(1, 1000), poison=st.sets(st.integers(0, 999), max_size=4))
def test_splitting_applies_everything_but_the_poison(batch: int, poison: set[int]) -> None:
    """Whatever the batch and wherever the poison: each other event once and in order, in a bounded number of tries."""
    applied: list[int] = []
    buried: list[int] = []
    place, size, tries, calls = 0, batch, Tries(), 0
    while place < 1000:
        calls += 1
        part = range(place, min(place + size, 1000))
        if not poison & set(part):
            applied += part
            place, size, tries = part.stop, grown(size, batch), Tries()
            continue
        decision, tries = judge(Cause.HANDLER, tries, count=len(part), sample=0.5)
        match decision:
            case Halve(size):
                pass
            case Poison():
                buried.append(place)
                place, size, tries = place + 1, grown(size, batch), Tries()
            case _:
                assert isinstance(decision, Again)
    assert applied == [n for n in range(1000) if n not in poison]
    assert buried == sorted(poison)
    assert calls <= 1000 / batch + 1 + len(poison) * (4 * batch.bit_length() + TRIES_ALONE + 2)
