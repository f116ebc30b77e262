"""The lag that a projection computes from what it has read."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from support.clock import FakeClock

from supervisor.events.append_signal import AppendSignal
from supervisor.events.reader import LogPosition, Reader
from supervisor.events.shard import Shard
from supervisor.workers.projection.lag_monitor import LagMonitor

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def log(head: int) -> LogPosition:
    """Return the position of a log in which everything is decided."""
    return LogPosition(revision=0, head=head, horizon=head, now=NOW)


def make() -> tuple[FakeClock, Reader, LagMonitor]:
    """Return a monitor with its clock and its reader."""
    clock, reader = FakeClock(), Reader(Shard("view", 0, 1), (), batch=10)
    context: Any = SimpleNamespace(clock=clock, append_signal=AppendSignal())
    return clock, reader, LagMonitor(context, reader)


async def test_what_comes_after_an_idle_hour_has_not_waited_for_an_hour() -> None:
    """Events that were unread at the last check and have been read since do not make the next event look old."""
    clock, reader, monitor = make()
    monitor.record(log(5))
    reader.read_position = 5
    await clock.jump(3600.0)
    monitor.record(log(6))
    assert monitor.lag.events == 1
    assert monitor.lag.seconds == 0.0


async def test_what_stays_unread_has_waited_since_the_first_check() -> None:
    """An open transaction holds it back, and the waiting counts from when it was first seen."""
    clock, reader, monitor = make()
    monitor.record(log(5))
    await clock.jump(20.0)
    reader.read_position = 4
    monitor.record(log(6))
    await clock.jump(1.0)
    assert monitor.lag.seconds == 21.0


async def test_writers_that_overlap_are_no_lag() -> None:
    """At each check another event is in flight, and each has waited only since it was first seen."""
    clock, reader, monitor = make()
    for head in range(3, 2000):
        monitor.record(log(head))
        reader.read_position = head - 2
        await clock.jump(0.05)
        assert monitor.lag.events == 2
        assert monitor.lag.seconds < 0.2


async def test_the_lag_after_a_long_transaction_is_that_of_the_next_one() -> None:
    """When the first of two long transactions ends, the lag is that of the second, to a sixteenth."""
    clock, reader, monitor = make()
    for second in range(86_400):
        monitor.record(log(10 + second))
        clock._now_s += 1.0
    assert monitor.lag.seconds == 86_400.0
    reader.read_position = 10 + 43_200
    assert 43_200.0 * 15 / 16 <= monitor.lag.seconds <= 43_200.0
    assert len(monitor._samples) < 300


async def test_a_shorter_log_starts_the_lag_again() -> None:
    """Events that were unread on a lost server do not age on its promoted standby."""
    clock, _, monitor = make()
    monitor.record(log(50))
    await clock.jump(20.0)
    monitor.record(log(30))
    await clock.jump(1.0)
    assert monitor.lag.seconds == 1.0
