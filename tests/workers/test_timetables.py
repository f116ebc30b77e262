"""When ticks are due: at a distance, and by cron."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock

from supervisor.workers.cron import CORRECTION_S, LOOK_AGAIN_S, CronTimetable
from supervisor.workers.every import EveryTimetable, first_from, next_due_s
from supervisor.workers.time_zone import machine_zone

if TYPE_CHECKING:
    from datetime import tzinfo

BERLIN = ZoneInfo("Europe/Berlin")


class SettableClock(FakeClock):
    """A clock whose wall time somebody may set."""

    shift = timedelta(0)

    def wall_time(self) -> datetime:
        return super().wall_time() + self.shift

    def pass_s(self, delta_s: float) -> None:
        self._now_s += delta_s


def ticks(timetable: CronTimetable, clock: SettableClock, *, duration: timedelta, zone: tzinfo = UTC) -> list[str]:
    """Return the local times at which ticks begin within `duration`, waiting as a runner does."""
    found, end_s = [], clock.now_s() + duration.total_seconds()
    while clock.now_s() < end_s:
        delay_s = timetable.delay_s()
        assert delay_s <= LOOK_AGAIN_S
        if delay_s > 0:
            clock.pass_s(delay_s)
        else:
            timetable.mark_started()
            found.append(clock.wall_time().astimezone(zone).strftime("%d %H:%M"))
    return found


def cron(
    expression: str, start: datetime, *, zone: tzinfo = UTC, immediate: bool = False
) -> tuple[SettableClock, CronTimetable]:
    clock = SettableClock(start.astimezone(UTC))
    return clock, CronTimetable(expression, zone=zone, immediate=immediate, clock=clock)


@given(st.floats(0, 1e5), st.floats(0.001, 1e4), st.floats(0, 1e5))
def test_the_next_tick_is_ahead_and_not_farther_than_a_distance(due_s: float, every_s: float, late_s: float) -> None:
    """However late a tick begins, exactly one follows within one distance: no burst."""
    now_s = due_s + late_s
    following_s = next_due_s(due_s, every_s, now_s=now_s)
    assert now_s < following_s <= now_s + every_s
    resumed_s = first_from(due_s, every_s, now_s=now_s)
    assert now_s - 0.001 <= resumed_s <= now_s + every_s + 0.001


def test_small_delays_do_not_add_up() -> None:
    """A tick that begins a little late does not move the ones after it."""
    assert next_due_s(100.0, 10.0, now_s=100.003) == 110.0


@pytest.mark.parametrize(("immediate", "delay_s"), [(True, 0.0), (False, 30.0)])
def test_the_first_tick(immediate: bool, delay_s: float) -> None:
    """The first tick comes at once or after one distance."""
    assert EveryTimetable(30.0, immediate=immediate, clock=FakeClock()).delay_s() == delay_s


def test_cron_ticks() -> None:
    """A tick begins at each instant that the expression names."""
    clock, timetable = cron("*/20 * * * *", datetime(2026, 1, 1, 0, 5, tzinfo=UTC))
    assert ticks(timetable, clock, duration=timedelta(hours=1)) == ["01 00:20", "01 00:40", "01 01:00"]


def test_cron_immediate() -> None:
    """With `immediate` one tick comes at once, and then those of the expression."""
    clock, timetable = cron("0 * * * *", datetime(2026, 1, 1, 0, 5, tzinfo=UTC), immediate=True)
    assert ticks(timetable, clock, duration=timedelta(hours=1)) == ["01 00:05", "01 01:00"]


def test_cron_missed_ticks_become_one() -> None:
    """What became due while nothing could run is one tick."""
    clock, timetable = cron("*/10 * * * *", datetime(2026, 1, 1, tzinfo=UTC))
    clock.pass_s(3605.0)
    assert ticks(timetable, clock, duration=timedelta(minutes=12)) == ["01 01:00", "01 01:10"]


def test_cron_in_spring() -> None:
    """A time that does not exist runs right after the gap."""
    clock, timetable = cron("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN), zone=BERLIN)
    assert ticks(timetable, clock, duration=timedelta(days=2), zone=BERLIN) == ["29 03:00", "30 02:30"]


def test_cron_in_autumn() -> None:
    """A time that comes twice runs once."""
    clock, timetable = cron("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=BERLIN), zone=BERLIN)
    assert ticks(timetable, clock, duration=timedelta(days=2), zone=BERLIN) == ["25 02:30", "26 02:30"]


def test_cron_asked_within_the_repeated_hour() -> None:
    """In the second of the two hours, the first one's time is over."""
    second = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    clock, timetable = cron("30 2 * * *", second, zone=BERLIN)
    assert ticks(timetable, clock, duration=timedelta(days=1, hours=1), zone=BERLIN) == ["26 02:30"]


def test_a_pause_over_a_clock_put_back_repeats_nothing() -> None:
    """What was done before the clock went back stays done when the worker goes on after a pause."""
    clock, timetable = cron("*/10 * * * *", datetime(2026, 1, 1, 11, 59, tzinfo=UTC))
    assert ticks(timetable, clock, duration=timedelta(minutes=62))[-1] == "01 13:00"
    clock.shift = timedelta(hours=-1)
    timetable.skip_missed()
    assert ticks(timetable, clock, duration=timedelta(minutes=70))[0] == "01 13:10"


@pytest.mark.parametrize("back_s", [1.0, 600.0, CORRECTION_S - 1.0])
def test_a_clock_put_back_a_little_repeats_nothing(back_s: float) -> None:
    """No instant fires twice when the wall clock goes back."""
    clock, timetable = cron("*/10 * * * *", datetime(2026, 1, 1, 11, 59, tzinfo=UTC))
    before = ticks(timetable, clock, duration=timedelta(minutes=62))
    clock.shift = timedelta(seconds=-back_s)
    after = ticks(timetable, clock, duration=timedelta(hours=4))
    assert before[-1] == "01 13:00"
    assert after[0] == "01 13:10"
    assert len({*before, *after}) == len(before) + len(after)


def test_a_clock_put_back_a_year_goes_on() -> None:
    """A machine that woke up in the future does not wait a year for its next tick."""
    clock, timetable = cron("0 * * * *", datetime(2027, 1, 1, 0, 5, tzinfo=UTC))
    ticks(timetable, clock, duration=timedelta(hours=2))
    clock.shift = timedelta(days=-365)
    assert len(ticks(timetable, clock, duration=timedelta(hours=2))) == 2


def test_a_clock_put_forward_is_noticed_within_a_minute() -> None:
    """A tick that the clock jumped over comes within a minute, once."""
    clock, timetable = cron("0 12 * * *", datetime(2026, 1, 1, 0, 0, tzinfo=UTC))
    clock.pass_s(1.0)
    clock.shift = timedelta(hours=13)
    assert ticks(timetable, clock, duration=timedelta(minutes=10)) == ["01 13:00"]


@pytest.mark.parametrize(
    ("name", "offset_h"), [("Europe/Berlin", 2), (":Asia/Tokyo", 9), ("No/Where", 0), ("CET-1CEST,nonsense", 0)]
)
def test_the_machines_zone(monkeypatch: pytest.MonkeyPatch, name: str, offset_h: int) -> None:
    """The zone comes with its rules from `TZ`, and from the clock's own offset where it cannot be read."""
    monkeypatch.setenv("TZ", name)
    summer = datetime(2026, 7, 1, tzinfo=UTC).astimezone(machine_zone(FakeClock()))
    assert summer.utcoffset() == timedelta(hours=offset_h)
