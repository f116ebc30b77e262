"""When ticks are due: at an interval, and by cron."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock

from supervisor.workers.schedules import (
    CLOCK_STEP_S,
    RECHECK_S,
    CronSchedule,
    EverySchedule,
    first_at_or_after,
    machine_zone,
    next_due_s,
)

if TYPE_CHECKING:
    from datetime import tzinfo

BERLIN = ZoneInfo("Europe/Berlin")


class SettableClock(FakeClock):
    """A clock whose wall time can be set."""

    shift = timedelta(0)

    def wall_time(self) -> datetime:
        return super().wall_time() + self.shift

    def pass_s(self, delta_s: float) -> None:
        self._now_s += delta_s


def ticks(schedule: CronSchedule, clock: SettableClock, *, duration: timedelta, zone: tzinfo = UTC) -> list[str]:
    """Return the local times at which ticks begin within `duration`, waiting as a worker instance does."""
    found, end_s = [], clock.now_s() + duration.total_seconds()
    while clock.now_s() < end_s:
        delay_s = schedule.delay_s()
        assert delay_s <= RECHECK_S
        if delay_s > 0:
            clock.pass_s(delay_s)
        else:
            schedule.mark_started()
            found.append(clock.wall_time().astimezone(zone).strftime("%d %H:%M"))
    return found


def cron(
    expression: str, start: datetime, *, zone: tzinfo = UTC, immediate: bool = False
) -> tuple[SettableClock, CronSchedule]:
    clock = SettableClock(start.astimezone(UTC))
    return clock, CronSchedule(expression, zone=zone, immediate=immediate, clock=clock)


@given(st.floats(0, 1e5), st.floats(0.001, 1e4), st.floats(0, 1e5))
def test_the_next_tick_is_within_one_interval(due_s: float, every_s: float, late_s: float) -> None:
    """However late a tick begins, exactly one follows within one interval: no burst."""
    now_s = due_s + late_s
    following_s = next_due_s(due_s, every_s, now_s=now_s)
    assert now_s < following_s <= now_s + every_s
    resumed_s = first_at_or_after(due_s, every_s, now_s=now_s)
    assert now_s - 0.001 <= resumed_s <= now_s + every_s + 0.001


def test_small_delays_do_not_add_up() -> None:
    """A tick that begins a little late does not delay the following ones."""
    assert next_due_s(100.0, 10.0, now_s=100.003) == 110.0


@pytest.mark.parametrize(("immediate", "delay_s"), [(True, 0.0), (False, 30.0)])
def test_the_first_tick(immediate: bool, delay_s: float) -> None:
    """The first tick comes at once or after one interval."""
    assert EverySchedule(30.0, immediate=immediate, clock=FakeClock()).delay_s() == delay_s


def test_cron_ticks() -> None:
    """A tick begins at each time that the expression names."""
    clock, schedule = cron("*/20 * * * *", datetime(2026, 1, 1, 0, 5, tzinfo=UTC))
    assert ticks(schedule, clock, duration=timedelta(hours=1)) == ["01 00:20", "01 00:40", "01 01:00"]


def test_cron_immediate() -> None:
    """With `immediate` one tick comes at once, then the ticks of the expression."""
    clock, schedule = cron("0 * * * *", datetime(2026, 1, 1, 0, 5, tzinfo=UTC), immediate=True)
    assert ticks(schedule, clock, duration=timedelta(hours=1)) == ["01 00:05", "01 01:00"]


def test_cron_missed_ticks_become_one() -> None:
    """What became due while nothing could run is one tick."""
    clock, schedule = cron("*/10 * * * *", datetime(2026, 1, 1, tzinfo=UTC))
    clock.pass_s(3605.0)
    assert ticks(schedule, clock, duration=timedelta(minutes=12)) == ["01 01:00", "01 01:10"]


def test_cron_in_spring() -> None:
    """A time that does not exist runs right after the gap."""
    clock, schedule = cron("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN), zone=BERLIN)
    assert ticks(schedule, clock, duration=timedelta(days=2), zone=BERLIN) == ["29 03:00", "30 02:30"]


def test_cron_in_autumn() -> None:
    """A time that comes twice runs once."""
    clock, schedule = cron("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=BERLIN), zone=BERLIN)
    assert ticks(schedule, clock, duration=timedelta(days=2), zone=BERLIN) == ["25 02:30", "26 02:30"]


def test_cron_asked_within_the_repeated_hour() -> None:
    """In the second of the two hours, the time in the first one is over."""
    second = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    clock, schedule = cron("30 2 * * *", second, zone=BERLIN)
    assert ticks(schedule, clock, duration=timedelta(days=1, hours=1), zone=BERLIN) == ["26 02:30"]


def test_a_pause_over_a_clock_put_back_repeats_nothing() -> None:
    """Ticks that were done before the clock went back are not repeated when the worker resumes."""
    clock, schedule = cron("*/10 * * * *", datetime(2026, 1, 1, 11, 59, tzinfo=UTC))
    assert ticks(schedule, clock, duration=timedelta(minutes=62))[-1] == "01 13:00"
    clock.shift = timedelta(hours=-1)
    schedule.skip_missed()
    assert ticks(schedule, clock, duration=timedelta(minutes=70))[0] == "01 13:10"


@pytest.mark.parametrize("back_s", [1.0, 600.0, CLOCK_STEP_S - 1.0])
def test_a_clock_put_back_a_little_repeats_nothing(back_s: float) -> None:
    """No instant fires twice when the wall clock goes back."""
    clock, schedule = cron("*/10 * * * *", datetime(2026, 1, 1, 11, 59, tzinfo=UTC))
    before = ticks(schedule, clock, duration=timedelta(minutes=62))
    clock.shift = timedelta(seconds=-back_s)
    after = ticks(schedule, clock, duration=timedelta(hours=4))
    assert before[-1] == "01 13:00"
    assert after[0] == "01 13:10"
    assert len({*before, *after}) == len(before) + len(after)


def test_a_clock_put_back_a_year_starts_again() -> None:
    """A machine that woke up in the future does not wait a year for its next tick."""
    clock, schedule = cron("0 * * * *", datetime(2027, 1, 1, 0, 5, tzinfo=UTC))
    ticks(schedule, clock, duration=timedelta(hours=2))
    clock.shift = timedelta(days=-365)
    assert len(ticks(schedule, clock, duration=timedelta(hours=2))) == 2


def test_a_clock_put_forward_is_noticed_within_a_minute() -> None:
    """A tick that the clock jumped over comes within a minute, once."""
    clock, schedule = cron("0 12 * * *", datetime(2026, 1, 1, 0, 0, tzinfo=UTC))
    clock.pass_s(1.0)
    clock.shift = timedelta(hours=13)
    assert ticks(schedule, clock, duration=timedelta(minutes=10)) == ["01 13:00"]


@pytest.mark.parametrize(
    ("name", "offset_h"), [("Europe/Berlin", 2), (":Asia/Tokyo", 9), ("No/Where", 0), ("CET-1CEST,nonsense", 0)]
)
def test_the_machines_zone(monkeypatch: pytest.MonkeyPatch, name: str, offset_h: int) -> None:
    """The zone comes with its rules from `TZ`, and from the clock's own offset where it cannot be read."""
    monkeypatch.setenv("TZ", name)
    summer = datetime(2026, 7, 1, tzinfo=UTC).astimezone(machine_zone(FakeClock()))
    assert summer.utcoffset() == timedelta(hours=offset_h)
