"""Folding: nothing is lost, nothing different is swallowed, and a flood costs a logarithm of its length."""

from __future__ import annotations

from collections import Counter
from math import log2

from hypothesis import given
from hypothesis import strategies as st

from supervisor.journal.folding import Folding, Key, Repeated

# Which of a few keys is said, how long after the one before.
SAID = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30, allow_nan=False)), max_size=200)


def key(number: int) -> Key:
    return Key("worker.failed", f"w{number}", 40, None)


@given(said=SAID, grows=st.booleans(), most_keys=st.integers(1, 6))
def test_every_entry_is_shown_or_counted_once(said: list[tuple[int, float]], grows: bool, most_keys: int) -> None:
    """For each key, what is shown and what is told as repeated is exactly what was said, also when keys are short."""
    folding, now_s = Folding(most_keys=most_keys), 100.0
    seen: Counter[Key] = Counter()
    for number, gap_s in said:
        now_s += gap_s
        seen[key(number)] += folding.shows(key(number), now_s, grows=grows)
        for told in folding.take_due(now_s):
            seen[told.key] += told.times
    for told in folding.take_all(now_s):
        seen[told.key] += told.times
    assert seen == Counter(key(number) for number, _ in said)
    assert folding.next_due_s() is None


@given(said=SAID)
def test_a_new_key_is_always_shown(said: list[tuple[int, float]]) -> None:
    """The first entry of a key is shown whatever streams of others run."""
    folding, now_s, known = Folding(), 100.0, set()
    for number, gap_s in said:
        now_s += gap_s
        is_shown = folding.shows(key(number), now_s)
        assert is_shown or number in known
        known.add(number)


@given(gaps=st.lists(st.floats(1.0, 5000, allow_nan=False), max_size=50))
def test_a_slow_stream_is_shown_in_full(gaps: list[float]) -> None:
    """Entries at least a second apart are all shown."""
    folding, now_s = Folding(), 100.0
    for gap_s in gaps:
        # A hair more than the window: adding up floats may fall a hair short of it.
        now_s += gap_s + 1e-6
        assert folding.shows(key(0), now_s)


def test_a_flood_costs_a_logarithm_of_its_length() -> None:
    """A thousand entries a second for an hour are told by few entries, at growing distances."""
    folding, lines = Folding(), 0
    for tick in range(3600 * 20):
        now_s = 100 + tick / 20
        lines += folding.shows(key(0), now_s) + len(folding.take_due(now_s))
    assert lines <= log2(600) + 3600 / 600 + 3


def test_a_flood_that_ends_is_told_and_forgotten() -> None:
    """After the last window the key is new again, and nothing is due any more."""
    folding = Folding()
    assert folding.shows(key(0), 100.0)
    assert not folding.shows(key(0), 100.5)
    assert folding.next_due_s() == 101.0
    assert [told.times for told in folding.take_due(101.0)] == [1]
    assert folding.next_due_s() is None
    assert not folding.shows(key(0), 102.9)
    assert [told.times for told in folding.take_due(103.0)] == [1]
    assert folding.shows(key(0), 107.1)


def test_windows_grow_to_ten_minutes() -> None:
    """However long a flood lasts, its number is told again after ten minutes."""
    folding, told_s = Folding(), []
    for second in range(3 * 3600):
        folding.shows(key(0), 100.0 + second)
        folding.shows(key(0), 100.0 + second)
        told_s += [100.0 + second] * len(folding.take_due(100.0 + second))
    assert told_s[-1] - told_s[-2] == 600.0


def test_a_change_of_state_keeps_the_first_window() -> None:
    """After a burst, an entry that does not grow its window is shown again a second later."""
    folding = Folding()
    for tick in range(100):
        folding.shows(key(0), 100 + tick / 10, grows=False)
    folding.take_due(110.0)
    assert folding.shows(key(0), 111.1, grows=False)


def test_a_single_entry_wakes_nobody() -> None:
    """An entry without repeats leaves nothing to be told, so that an idle daemon stays asleep."""
    folding = Folding()
    folding.shows(key(0), 100.0)
    assert folding.next_due_s() is None


def test_the_oldest_key_goes_first_and_is_told() -> None:
    """At the bound the oldest key is told at once and forgotten."""
    folding = Folding(most_keys=2)
    for number in (0, 0, 1, 2):
        folding.shows(key(number), 100.0)
    assert folding.next_due_s() == float("-inf")
    assert [(told.key.worker, told.times) for told in folding.take_due(100.0)] == [("w0", 1)]


def test_an_entry_at_the_very_end_of_a_window_is_shown() -> None:
    """Entries exactly a second apart are all shown."""
    folding = Folding()
    assert [folding.shows(key(0), 100.0 + second) for second in range(5)] == [True] * 5


def test_what_is_told_says_over_how_long() -> None:
    """The time counts from the beginning of the window."""
    folding = Folding()
    folding.shows(key(0), 100.0)
    folding.shows(key(0), 100.5)
    assert folding.take_due(103.0) == [Repeated(key(0), 1, 3.0)]


def test_what_is_due_at_once_is_told_in_the_order_of_the_repeats() -> None:
    """The journal keeps the order in which things went on."""
    folding = Folding()
    for number in (2, 0, 1):
        folding.shows(key(number), 100.0)
        folding.shows(key(number), 100.0)
    assert [told.key for told in folding.take_due(101.0)] == [key(2), key(0), key(1)]


def test_the_last_word_leaves_nothing_due() -> None:
    """After everything was told, no moment is left at which something would be."""
    folding = Folding()
    folding.shows(key(0), 100.0)
    folding.shows(key(0), 100.0)
    assert [told.times for told in folding.take_all(100.1)] == [1]
    assert folding.next_due_s() is None


def test_the_oldest_key_is_the_one_whose_window_began_first() -> None:
    """A key whose repeats were told is young again."""
    folding = Folding(most_keys=2)
    shown = [folding.shows(key(number), now_s) for number, now_s in ((0, 100.0), (0, 100.5), (1, 100.9), (2, 101.1))]
    assert shown == [True, False, True, True]
    assert not folding.shows(key(0), 101.2)


def test_a_key_that_was_forgotten_holds_up_no_other() -> None:
    """What was told early because of the bound is not told again, and what is due behind it is told in time."""
    folding = Folding(most_keys=1)
    for number, now_s in ((0, 100.0), (0, 100.1), (1, 100.2), (1, 100.3)):
        folding.shows(key(number), now_s)
    assert [told.key for told in folding.take_due(102.0)] == [key(0), key(1)]


def test_what_is_over_does_not_pile_up() -> None:
    """A stream of ever new keys leaves nothing behind that it does not need."""
    folding = Folding()
    for number in range(1000):
        assert folding.shows(key(number), 100.0 + number * 10)
    assert len(folding._windows) == 1
