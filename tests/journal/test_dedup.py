"""Deduplication: nothing is lost, a new key is always shown, and a flood costs a logarithm of its length."""

from __future__ import annotations

from collections import Counter
from math import log2

from hypothesis import given
from hypothesis import strategies as st

from supervisor.journal.dedup import Deduplicator

# Which of a few keys is said, how long after the one before.
SAID = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30, allow_nan=False)), max_size=200)


def new(max_keys: int = 4096) -> Deduplicator[str]:
    return Deduplicator(max_keys=max_keys)


def admit(dedup: Deduplicator[str], number: int, now_s: float, *, widens: bool = True) -> bool:
    """Offer an entry; its description is the time at which it came."""
    return dedup.admit(number, now_s, lambda: f"at {now_s}", widens=widens)


@given(said=SAID, widens=st.booleans(), max_keys=st.integers(1, 6))
def test_every_entry_is_shown_or_counted_once(said: list[tuple[int, float]], widens: bool, max_keys: int) -> None:
    """For each key, the entries shown and reported as repeated are exactly those offered, with few keys too."""
    dedup, now_s = new(max_keys), 100.0
    seen: Counter[object] = Counter()
    for number, gap_s in said:
        now_s += gap_s
        seen[number] += admit(dedup, number, now_s, widens=widens)
        for told in dedup.take_due(now_s):
            seen[told.key] += told.times
    for told in dedup.take_all(now_s):
        seen[told.key] += told.times
    assert seen == Counter(number for number, _ in said)
    assert dedup.next_due_s() is None


@given(said=SAID)
def test_a_new_key_is_always_shown(said: list[tuple[int, float]]) -> None:
    """The first entry of a key is shown whatever streams of others run."""
    dedup, now_s, known = new(), 100.0, set()
    for number, gap_s in said:
        now_s += gap_s
        is_shown = admit(dedup, number, now_s)
        assert is_shown or number in known
        known.add(number)


@given(gaps=st.lists(st.floats(1.0, 5000, allow_nan=False), max_size=50))
def test_a_slow_stream_is_shown_in_full(gaps: list[float]) -> None:
    """Entries at least a second apart are all shown."""
    dedup, now_s = new(), 100.0
    for gap_s in gaps:
        # A hair more than the window: adding up floats may fall a hair short of it.
        now_s += gap_s + 1e-6
        assert admit(dedup, 0, now_s)


def test_a_flood_costs_a_logarithm_of_its_length() -> None:
    """A thousand entries a second for an hour cost few entries, at growing distances."""
    dedup, lines = new(), 0
    for tick in range(3600 * 20):
        now_s = 100 + tick / 20
        lines += admit(dedup, 0, now_s) + len(dedup.take_due(now_s))
    assert lines <= log2(600) + 3600 / 600 + 3


def test_a_flood_that_ends_is_reported_and_forgotten() -> None:
    """After the last window the key is new again, and nothing is due any more."""
    dedup = new()
    assert admit(dedup, 0, 100.0)
    assert not admit(dedup, 0, 100.5)
    assert dedup.next_due_s() == 101.0
    assert [told.times for told in dedup.take_due(101.0)] == [1]
    assert dedup.next_due_s() is None
    assert not admit(dedup, 0, 102.9)
    assert [told.times for told in dedup.take_due(103.0)] == [1]
    assert admit(dedup, 0, 107.1)


def test_a_change_of_state_keeps_the_first_window() -> None:
    """After a burst, an entry that does not grow its window is shown again a second later."""
    dedup = new()
    for tick in range(100):
        admit(dedup, 0, 100 + tick / 10, widens=False)
    dedup.take_due(110.0)
    assert admit(dedup, 0, 111.1, widens=False)


def test_the_report_describes_the_latest_repeat() -> None:
    """What the caller says of the last entry that was left out is handed back with the count."""
    dedup = new()
    for now_s in (100.0, 100.2, 100.4):
        admit(dedup, 0, now_s)
    assert [(told.times, told.latest) for told in dedup.take_due(101.0)] == [(2, "at 100.4")]


def test_a_single_entry_wakes_nobody() -> None:
    """An entry without repeats leaves nothing to report, so that an idle daemon stays asleep."""
    dedup = new()
    admit(dedup, 0, 100.0)
    assert dedup.next_due_s() is None


def test_the_oldest_key_goes_first_and_is_reported() -> None:
    """At the bound the oldest key is reported at once and forgotten."""
    dedup = new(2)
    for number in (0, 0, 1, 2):
        admit(dedup, number, 100.0)
    assert dedup.next_due_s() == float("-inf")
    assert [(told.key, told.times) for told in dedup.take_due(100.0)] == [(0, 1)]
