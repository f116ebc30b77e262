"""Deduplication: nothing is lost, a new key is always shown, and a flood costs a logarithm of its length."""

from __future__ import annotations

from collections import Counter
from math import log2

from hypothesis import given
from hypothesis import strategies as st

from supervisor.journal.dedup import Deduplicator, Suppressed

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


def test_windows_grow_to_ten_minutes() -> None:
    """However long a flood lasts, its number is reported again after ten minutes."""
    dedup, reported_s = new(), []
    for second in range(3 * 3600):
        admit(dedup, 0, 100.0 + second)
        admit(dedup, 0, 100.0 + second)
        reported_s += [100.0 + second] * len(dedup.take_due(100.0 + second))
    assert reported_s[-1] - reported_s[-2] == 600.0


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


def test_the_first_eight_variants_of_a_key_are_shown() -> None:
    """Each of them once, any further one is a repeat, and so it stays while any come."""
    dedup, shown = new(), []
    for tick in range(36000):
        now_s = 100 + tick / 10
        if dedup.admit(0, now_s, str, variant=tick):
            shown.append(tick)
        dedup.take_due(now_s)
    assert shown == list(range(8))


def test_variants_alone_keep_a_window_alive() -> None:
    """A stream of ever new variants is bounded, too, when each window sees fewer than there is room for."""
    dedup = new()
    shown = [dedup.admit(0, 100 + tick / 2, str, variant=tick) for tick in range(1000)]
    assert shown.count(True) == 8
    assert sum(told.times for told in dedup.take_all(600.0)) == 992


def test_variants_are_forgotten_with_their_key() -> None:
    """After a quiet window every variant is shown again."""
    dedup = new()
    for now_s in (100.0, 110.0):
        assert [dedup.admit(0, now_s, str, variant=name) for name in "abab"] == [True, True, False, False]
        dedup.take_due(now_s + 1)


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


def test_an_entry_at_the_very_end_of_a_window_is_shown() -> None:
    """Entries exactly a second apart are all shown."""
    dedup = new()
    assert [admit(dedup, 0, 100.0 + second) for second in range(5)] == [True] * 5


def test_the_report_says_over_how_long() -> None:
    """The time counts from the beginning of the window."""
    dedup = new()
    admit(dedup, 0, 100.0)
    admit(dedup, 0, 100.5)
    assert dedup.take_due(103.0) == [Suppressed(key=0, times=1, over_s=3.0, latest="at 100.5")]


def test_reports_that_are_due_at_once_keep_the_order_of_the_repeats() -> None:
    """The journal keeps the order in which the entries were repeated."""
    dedup = new()
    for number in (2, 0, 1):
        admit(dedup, number, 100.0)
        admit(dedup, number, 100.0)
    assert [told.key for told in dedup.take_due(101.0)] == [2, 0, 1]


def test_the_last_report_leaves_nothing_due() -> None:
    """After everything was reported, nothing is due at any time."""
    dedup = new()
    admit(dedup, 0, 100.0)
    admit(dedup, 0, 100.0)
    assert [told.times for told in dedup.take_all(100.1)] == [1]
    assert dedup.next_due_s() is None


def test_the_oldest_key_is_the_one_whose_window_began_first() -> None:
    """A key whose repeats were reported is young again."""
    dedup = new(2)
    shown = [admit(dedup, number, now_s) for number, now_s in ((0, 100.0), (0, 100.5), (1, 100.9), (2, 101.1))]
    assert shown == [True, False, True, True]
    assert not admit(dedup, 0, 101.2)


def test_a_key_that_was_forgotten_delays_no_other() -> None:
    """What was reported early because of the bound is not reported again, and what is due behind it is in time."""
    dedup = new(1)
    for number, now_s in ((0, 100.0), (0, 100.1), (1, 100.2), (1, 100.3)):
        admit(dedup, number, now_s)
    assert [told.key for told in dedup.take_due(102.0)] == [0, 1]


def test_windows_that_are_over_are_removed() -> None:
    """A stream of ever new keys leaves no more than the last window."""
    dedup = new()
    for number in range(1000):
        assert admit(dedup, number, 100.0 + number * 10)
    assert len(dedup._windows) == 1


def test_four_thousand_keys_are_kept_by_default() -> None:
    """The bound holds however many different entries there are."""
    dedup: Deduplicator[str] = Deduplicator()
    assert all(admit(dedup, number, 100.0) for number in range(4096))
    assert not admit(dedup, 0, 100.1)
    assert admit(dedup, 4096, 100.2)  # the oldest makes room
    assert len(dedup._windows) == 4096


def test_a_window_widens_unless_told_otherwise() -> None:
    """The second window of a key is twice as long as the first."""
    dedup = new()
    assert [dedup.admit(0, now_s, str) for now_s in (100.0, 100.5)] == [True, False]
    dedup.take_due(101.0)
    assert not dedup.admit(0, 102.5, str)


def test_two_windows_that_are_over_go_for_each_new_key() -> None:
    """The work of one entry is bounded, and a window that ends this instant is over."""
    dedup = new()
    for number in range(5):
        admit(dedup, number, 100.0)
    for number, kept in ((5, 4), (6, 3), (7, 3)):
        admit(dedup, number, 101.0)
        assert len(dedup._windows) == kept


def test_a_window_that_is_over_widens_before_the_next_entry_is_judged() -> None:
    """An entry that comes before the report of its key is still a repeat, however many keys were repeated before."""
    dedup = new()
    for now_s in (0.0, 0.1):
        for number in range(10):
            admit(dedup, number, now_s)
    dedup.take_due(1.0)
    assert not admit(dedup, 9, 1.1)
    assert not admit(dedup, 9, 3.0)
