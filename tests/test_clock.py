"""The one place that reads the clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from support.clock import FakeClock, settle

from supervisor.clock import SystemClock, done_within


async def test_sleeps_never_too_short() -> None:
    """A sleep lasts at least as long as it should, by the clock that decides deadlines."""
    clock = SystemClock()
    for delay_s in (0.0, -1.0, 0.0001, 0.0015, 0.02):
        before_s = clock.now_s()
        await clock.sleep(delay_s)
        assert clock.now_s() - before_s >= delay_s


async def test_sleeps_never_too_short_under_uvloop() -> None:
    """The same with uvloop, whose timers have a resolution of a millisecond and fire early."""
    import uvloop

    async def sleep_often() -> float:
        clock = SystemClock()
        shortest_s = 1.0
        for _ in range(20):
            before_s = clock.now_s()
            await clock.sleep(0.0034)  # which uvloop rounds to 3 ms
            shortest_s = min(shortest_s, clock.now_s() - before_s)
        return shortest_s

    def run() -> float:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(sleep_often())

    assert await asyncio.to_thread(run) >= 0.0034


def test_two_clocks_cannot_be_mixed_unnoticed() -> None:
    """Each clock has an offset of its own, far from zero and from any other's."""
    readings = [SystemClock().now_s() - time.monotonic() for _ in range(20)]
    assert min(readings) >= 1e6 - 1
    assert len({round(reading) for reading in readings}) > 15


def test_a_clock_goes_with_the_machine() -> None:
    """Differences are the machine's own monotonic seconds; wall time knows its zone."""
    clock = SystemClock()
    before, before_s = time.monotonic(), clock.now_s()
    time.sleep(0.01)
    after_s, after = clock.now_s(), time.monotonic()
    assert 0.01 <= after_s - before_s <= after - before + 1e-6
    wall = clock.wall_time()
    assert wall.tzinfo is not None
    assert abs((datetime.now(UTC) - wall).total_seconds()) < 60


async def test_done_within_returns_whether_it_is_done() -> None:
    """A future that ends before the limit is done; its result is still there to take."""
    clock = FakeClock()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(done_within(future, 5.0, clock=clock))
    await clock.jump(4.9)
    assert not waiting.done()
    future.set_result(7)
    assert await waiting
    assert future.result() == 7
    await settle()
    assert clock.sleepers == []


async def test_ends_within_leaves_a_late_future_alone() -> None:
    """At the limit it answers no and has cancelled nothing."""
    clock = FakeClock()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(done_within(future, 5.0, clock=clock))
    await clock.jump(5.0)
    assert await waiting is False
    assert not future.done()


async def test_ends_within_does_not_sleep_for_what_is_done() -> None:
    """A future that is done, failed or cancelled needs no wait and is not asked for its outcome."""
    clock = FakeClock()
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[int] = loop.create_future()
    failed.set_exception(ValueError("kept"))
    cancelled: asyncio.Future[int] = loop.create_future()
    cancelled.cancel()
    assert await done_within(failed, 5.0, clock=clock)
    assert await done_within(cancelled, 5.0, clock=clock)
    assert clock.sleepers == []
    with pytest.raises(ValueError, match="kept"):
        failed.result()


async def test_a_cancelled_wait_cancels_neither_the_future_nor_leaves_a_timer() -> None:
    """Whoever waits may be cancelled; the future goes on and the timer is gone."""
    clock = FakeClock()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(done_within(future, 5.0, clock=clock))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await settle()
    assert not future.done()
    assert clock.sleepers == []
