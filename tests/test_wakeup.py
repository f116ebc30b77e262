"""One sleeping task for all deadlines."""

from __future__ import annotations

from support.clock import FakeClock, settle

from supervisor.tasks import BackgroundTasks
from supervisor.wakeup import TimerQueue


def make() -> tuple[FakeClock, TimerQueue, list[str]]:
    clock = FakeClock()
    return clock, TimerQueue(clock=clock, tasks=BackgroundTasks(lambda name, error: None)), []  # noqa: ARG005


async def test_timers_call_in_order_and_on_time() -> None:
    """Each timer calls back at its moment, also one that is set while a later one is waited for."""
    clock, timers, called = make()
    timers.call_at(clock.now_s() + 5, lambda: called.append("late"))
    await settle()
    timers.call_at(clock.now_s() + 1, lambda: called.append("soon"))
    await clock.jump(0.9)
    assert called == []
    await clock.jump(0.2)
    assert called == ["soon"]
    await clock.jump(4.0)
    assert called == ["soon", "late"]
    timers.close()


async def test_a_cancelled_deadline_is_silent() -> None:
    """A cancelled timer does not call back, and the others do."""
    clock, timers, called = make()
    timer = timers.call_at(clock.now_s() + 1, lambda: called.append("cancelled"))
    timers.call_at(clock.now_s() + 1, lambda: called.append("kept"))
    timers.cancel(timer)
    await clock.jump(2)
    assert called == ["kept"]
    timers.close()


async def test_cancelled_deadlines_are_removed() -> None:
    """A deadline far away that is set and cancelled again and again takes no memory."""
    clock, timers, _ = make()
    for _ in range(10_000):
        timers.cancel(timers.call_at(clock.now_s() + 3600, lambda: None))
    assert len(timers._timers) < 200
    timers.close()


async def test_one_sleep_for_ten_thousand_deadlines() -> None:
    """Ten thousand deadlines cost one timer."""
    clock, timers, called = make()
    for n in range(10_000):
        timers.call_at(clock.now_s() + 10 + n / 1000, lambda: called.append(""))
    await settle()
    assert len(clock.sleepers) == 1
    await clock.jump(30)
    assert len(called) == 10_000
    timers.close()
