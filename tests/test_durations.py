from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("250ms", 0.25), ("5s", 5.0), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), ("2d", 172800.0), ("0s", 0.0)],
)
def test_reads_a_number_with_its_unit(text: str, duration_s: float) -> None:
    """A number and its unit are seconds."""
    assert parse_duration(text) == pytest.approx(duration_s)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 s",
        " 5s",
        "5s\n",
        "-5s",
        "+5s",
        "5S",
        "5sec",
        ".5s",
        "5.s",
        "1e3s",
        "infs",
        "nan",
        "٣s",
        "1h30m",
    ],
)
def test_refuses_what_is_no_duration(text: str) -> None:
    """Anything else is refused with a sentence that shows what a duration looks like."""
    with pytest.raises(ValueError, match='expected a duration such as "250ms", "5s", "2m" or "1h", found'):
        parse_duration(text)


def test_refuses_a_number_that_no_float_holds() -> None:
    """So many digits that the seconds would be infinite are no duration."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration("9" * 400 + "s")


@given(st.text())
def test_reading_never_fails_otherwise(text: str) -> None:
    """Arbitrary text is a finite duration that is not negative, or a ValueError."""
    try:
        duration_s = parse_duration(text)
    except ValueError:
        return
    assert 0 <= duration_s < math.inf


@pytest.mark.parametrize(
    ("duration_s", "shown"),
    [
        (0.0, "0ms"),
        (0.25, "250ms"),
        (0.9994, "999ms"),
        (0.9996, "1s"),
        (4.2, "4.2s"),
        (30.0, "30s"),
        (59.94, "59.9s"),
        (59.96, "1m"),
        (125.0, "2m 5s"),
        (3599.6, "1h"),
        (12000.0, "3h 20m"),
        (187200.0, "2d 4h"),
        (86400.0, "1d"),
        (-5.0, "-5s"),
        (math.inf, "for ever"),
        (math.nan, "unknown"),
    ],
)
def test_shows_a_duration_to_people(duration_s: float, shown: str) -> None:
    """A duration is shown in at most two units, and no value makes a log fail."""
    assert format_duration(duration_s) == shown


@given(st.floats(min_value=0.001, max_value=1e8))
def test_what_is_shown_is_near_the_truth(duration_s: float) -> None:
    """The shown text, read again, is within a part in twenty (or half a millisecond) of the duration."""
    read_s = sum(parse_duration(part) for part in format_duration(duration_s).split())
    assert read_s == pytest.approx(duration_s, rel=0.05, abs=0.0006)
