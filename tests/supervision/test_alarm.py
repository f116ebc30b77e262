"""One timer for all deadlines."""

from __future__ import annotations

from support.clock import FakeClock, settle

from supervisor.supervision.alarm import Alarm
from supervisor.tasks import BackgroundTasks


def make() -> tuple[FakeClock, Alarm, list[str]]:
    clock = FakeClock()
    return clock, Alarm(clock=clock, tasks=BackgroundTasks(lambda name, error: None)), []  # noqa: ARG005


async def test_rings_in_order_and_on_time() -> None:
    """Each deadline rings at its moment, also one that is set while a later one is waited for."""
    clock, alarm, rung = make()
    alarm.at(clock.now_s() + 5, lambda: rung.append("late"))
    await settle()
    alarm.at(clock.now_s() + 1, lambda: rung.append("soon"))
    await clock.jump(0.9)
    assert rung == []
    await clock.jump(0.2)
    assert rung == ["soon"]
    await clock.jump(4.0)
    assert rung == ["soon", "late"]
    alarm.close()


async def test_a_cancelled_deadline_is_silent() -> None:
    """A cancelled deadline does not ring, and the others do."""
    clock, alarm, rung = make()
    ring = alarm.at(clock.now_s() + 1, lambda: rung.append("cancelled"))
    alarm.at(clock.now_s() + 1, lambda: rung.append("kept"))
    alarm.cancel(ring)
    await clock.jump(2)
    assert rung == ["kept"]
    alarm.close()


async def test_cancelled_deadlines_are_tidied_away() -> None:
    """A deadline far away that is set and cancelled again and again takes no memory."""
    clock, alarm, _ = make()
    for _ in range(10_000):
        alarm.cancel(alarm.at(clock.now_s() + 3600, lambda: None))
    assert len(alarm._rings) < 200
    alarm.close()


async def test_one_sleep_for_ten_thousand_deadlines() -> None:
    """Ten thousand deadlines cost one timer."""
    clock, alarm, rung = make()
    for n in range(10_000):
        alarm.at(clock.now_s() + 10 + n / 1000, lambda: rung.append(""))
    await settle()
    assert len(clock.sleepers) == 1
    await clock.jump(30)
    assert len(rung) == 10_000
    alarm.close()
