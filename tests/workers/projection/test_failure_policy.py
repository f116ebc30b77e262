"""What follows when a batch could not be applied."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import TransactionMisused
from supervisor.workers.projection.failure_policy import (
    MAX_ALONE,
    MAX_CONNECTION_ENDED,
    MAX_TRANSIENT,
    Attempts,
    FailRun,
    FailureCause,
    MarkPoison,
    RetryAfter,
    RetrySmaller,
    classify,
    decide,
    next_batch_size,
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
        (ValueError(), "handler", FailureCause.HANDLER),
        (ValueError(), "", FailureCause.READING),
        (OSError(), "outage handler", FailureCause.OUTAGE),
        (_error("40P01"), "outage handler", FailureCause.OUTAGE),
        (OSError(), "ended handler", FailureCause.CONNECTION_ENDED),
        (OSError(), "ended", FailureCause.CONNECTION_ENDED),
        (_error("40001"), "handler", FailureCause.TRANSIENT),
        (_error("40P01"), "ended handler", FailureCause.TRANSIENT),
        (_error("55P03"), "handler", FailureCause.TRANSIENT),
        (_error("53300"), "handler", FailureCause.TRANSIENT),
        (_error("53100"), "", FailureCause.TRANSIENT),
        (_error("58030"), "handler", FailureCause.TRANSIENT),
        (_error("25006"), "handler", FailureCause.MISUSE),
        (_error("23505"), "handler", FailureCause.HANDLER),
        (_error("57014"), "handler", FailureCause.HANDLER),
        (TransactionMisused(), "handler", FailureCause.MISUSE),
        (TransactionMisused(), "ended handler", FailureCause.MISUSE),
        (_wrapped(_error("40P01")), "handler", FailureCause.TRANSIENT),
        (_wrapped(TransactionMisused()), "handler", FailureCause.MISUSE),
        (_wrapped(KeyError()), "handler", FailureCause.HANDLER),
    ],
)
def test_why_a_batch_was_not_applied(error: BaseException, facts: str, cause: FailureCause) -> None:
    """An outage comes first, then misuse, then transient problems, and only then the handler itself."""
    found = classify(
        error, is_outage="outage" in facts, connection_ended="ended" in facts, handler_started="handler" in facts
    )
    assert found is cause


def test_causes_in_a_circle_are_examined_once() -> None:
    """The search for a cause ends, also if two errors are the context of each other."""
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    assert classify(first, is_outage=False, connection_ended=False, handler_started=True) is FailureCause.HANDLER


def test_an_error_that_occurs_twice_hides_no_other() -> None:
    """The search continues behind an error that was seen before."""
    twice = ValueError()
    group = ExceptionGroup("several", [_error("40P01"), twice, twice])
    cause = classify(group, is_outage=False, connection_ended=False, handler_started=True)
    assert cause is FailureCause.TRANSIENT


@pytest.mark.parametrize(("depth", "cause"), [(9_999, FailureCause.TRANSIENT), (10_000, FailureCause.HANDLER)])
def test_the_search_for_a_cause_ends_after_ten_thousand_errors(depth: int, cause: FailureCause) -> None:
    """No error of a handler can keep the loop busy for long."""
    error: BaseException = _error("40P01")
    for _ in range(depth):
        outer = ValueError()
        outer.__cause__ = error
        error = outer
    assert classify(error, is_outage=False, connection_ended=False, handler_started=True) is cause


def test_a_failing_event_is_retried_alone_with_growing_delays() -> None:
    """It is retried three times more, then it is poison."""
    attempts, delays = Attempts(), []
    for _ in range(MAX_ALONE):
        decision, attempts = decide(FailureCause.HANDLER, attempts, count=1, sample=0.5)
        assert isinstance(decision, RetryAfter)
        delays.append(decision.delay_s)
    assert delays == pytest.approx([0.1, 0.4, 1.6])
    assert decide(FailureCause.HANDLER, attempts, count=1, sample=0.5)[0] == MarkPoison()


@pytest.mark.parametrize("cause", [FailureCause.OUTAGE, FailureCause.MISUSE, FailureCause.READING])
def test_some_causes_end_the_run(cause: FailureCause) -> None:
    """Nothing is split or retried: the restart policy decides."""
    assert decide(cause, Attempts(), count=100, sample=0.5) == (FailRun(), Attempts())


def test_a_transient_problem_is_retried_and_then_fails_the_run() -> None:
    """The same batch is retried, never a smaller one."""
    attempts, delays = Attempts(), []
    for _ in range(MAX_TRANSIENT):
        decision, attempts = decide(FailureCause.TRANSIENT, attempts, count=100, sample=1.0)
        assert isinstance(decision, RetryAfter)
        delays.append(decision.delay_s)
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert decide(FailureCause.TRANSIENT, attempts, count=100, sample=1.0)[0] == FailRun()


def test_a_connection_that_is_ended_again_and_again_counts_as_the_handlers_failure() -> None:
    """Only after some retries, and never if the handler was not called."""
    attempts, delays = Attempts(), []
    for _ in range(MAX_CONNECTION_ENDED):
        decision, attempts = decide(FailureCause.CONNECTION_ENDED, attempts, count=8, sample=1.0)
        assert isinstance(decision, RetryAfter)
        delays.append(decision.delay_s)
    assert delays == [0.05, 0.1, 0.2]
    assert decide(FailureCause.CONNECTION_ENDED, attempts, count=8, sample=1.0)[0] == RetrySmaller(4)
    assert decide(FailureCause.CONNECTION_ENDED, attempts, count=0, sample=1.0)[0] == FailRun()


@pytest.mark.parametrize(("size", "batch", "next_size"), [(1, 100, 2), (3, 100, 6), (50, 100, 100), (60, 100, 100)])
def test_the_batch_doubles_after_a_success(size: int, batch: int, next_size: int) -> None:
    """It grows back to a whole batch as fast as it shrank."""
    assert next_batch_size(size, batch) == next_size


@given(batch=st.integers(1, 1000), poison=st.sets(st.integers(0, 999), max_size=4))
def test_splitting_applies_everything_but_the_poison(batch: int, poison: set[int]) -> None:
    """Every other event is applied once and in order, in a bounded number of attempts."""
    applied: list[int] = []
    dead_letters: list[int] = []
    place, size, attempts, calls = 0, batch, Attempts(), 0
    while place < 1000:
        calls += 1
        part = range(place, min(place + size, 1000))
        if not poison & set(part):
            applied += part
            place, size, attempts = part.stop, next_batch_size(size, batch), Attempts()
            continue
        decision, attempts = decide(FailureCause.HANDLER, attempts, count=len(part), sample=0.5)
        match decision:
            case RetrySmaller(size):
                pass
            case MarkPoison():
                dead_letters.append(place)
                place, size, attempts = place + 1, next_batch_size(size, batch), Attempts()
            case _:
                assert isinstance(decision, RetryAfter)
    assert applied == [n for n in range(1000) if n not in poison]
    assert dead_letters == sorted(poison)
    assert calls <= 1000 / batch + 1 + len(poison) * (4 * batch.bit_length() + MAX_ALONE + 2)
