"""The signal that wakes projections: by a notification, by a log that has grown, and by the stop."""

from __future__ import annotations

import asyncio
from typing import Any

from support.clock import FakeClock, settle

from supervisor.clock import SystemClock
from supervisor.events.append_signal import AppendSignal
from supervisor.stop_signal import StopSignal


async def test_it_wakes_its_waiters() -> None:
    """A notification, a log that has grown and the stop wake them; a snapshot that shows nothing new does not."""
    signal, stop, clock = AppendSignal(), StopSignal(), SystemClock()

    class Seen:
        head = 7

    async def woken_by(cause: Any) -> None:
        waiting = asyncio.ensure_future(signal.wait(signal.count, signal.head, stop=stop, clock=clock))
        await settle()
        assert not waiting.done()
        signal.update_head(Seen())
        cause()
        async with asyncio.timeout(30):
            assert await waiting

    signal.update_head(Seen())
    await woken_by(signal.notify)
    await woken_by(lambda: signal.notify("payload"))

    def grow() -> None:
        Seen.head += 1
        signal.update_head(Seen())

    await woken_by(grow)
    await woken_by(stop.set)
    # A log that is shorter, after a fail-over, is not new; that it grows from there is.
    stop = StopSignal()
    Seen.head = 3
    signal.update_head(Seen())
    await woken_by(grow)


async def test_a_notification_before_the_wait_counts() -> None:
    """A notification between the reading and the waiting is not missed."""
    signal, stop, clock = AppendSignal(), StopSignal(), FakeClock()
    count = signal.count
    signal.notify()
    assert await signal.wait(count, 0, stop=stop, clock=clock)
    signal.head = 9
    assert await signal.wait(signal.count, 8, stop=stop, clock=clock)


async def test_a_wait_ends_at_its_timeout() -> None:
    """It returns False then."""
    signal, stop, clock = AppendSignal(), StopSignal(), FakeClock()
    waiting = asyncio.ensure_future(signal.wait(signal.count, 0, stop=stop, clock=clock, timeout_s=0.5))
    assert await clock.next_sleep() == 0.5
    await clock.jump(0.5)
    assert await waiting is False
