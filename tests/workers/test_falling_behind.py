"""How far behind a projection says it is, from what it has looked at and read."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

from support.clock import FakeClock

from supervisor.events.bell import Bell
from supervisor.events.checkpoint import Sight
from supervisor.events.reader import Reader
from supervisor.events.shard import Shard
from supervisor.workers.falling_behind import FallingBehind

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def sight(head: int) -> Sight:
    """A look at the log, everything of which is decided."""
    return Sight(revision=0, head=head, horizon=head, now=NOW)


async def test_what_comes_after_an_idle_hour_has_not_waited_for_an_hour() -> None:
    """What was unread at the last look and has been read since does not make the next event look old."""
    clock, reader = FakeClock(), Reader(Shard("view", 0, 1), (), batch=10)
    behind = FallingBehind(SimpleNamespace(clock=clock, bell=Bell()), reader, warning_s=60.0)  # type: ignore[arg-type]
    behind.saw(sight(5))
    reader.read_upto = 5
    await clock.jump(3600.0)
    behind.saw(sight(6))
    assert behind.lag.events == 1
    assert behind.lag.seconds == 0.0


async def test_what_is_unread_over_several_looks_has_waited_since_the_first() -> None:
    """Somebody's open transaction holds it back, and the waiting counts from where it was first seen."""
    clock, reader = FakeClock(), Reader(Shard("view", 0, 1), (), batch=10)
    behind = FallingBehind(SimpleNamespace(clock=clock, bell=Bell()), reader, warning_s=60.0)  # type: ignore[arg-type]
    behind.saw(sight(5))
    await clock.jump(20.0)
    reader.read_upto = 4
    behind.saw(sight(6))
    await clock.jump(1.0)
    assert behind.lag.seconds == 21.0


async def test_writers_that_overlap_are_no_lag() -> None:
    """Something is in flight at each look, another thing each time: it has waited since it was first seen."""
    clock, reader = FakeClock(), Reader(Shard("view", 0, 1), (), batch=10)
    behind = FallingBehind(SimpleNamespace(clock=clock, bell=Bell()), reader, warning_s=60.0)  # type: ignore[arg-type]
    for head in range(3, 2000):
        behind.saw(sight(head))
        reader.read_upto = head - 2
        await clock.jump(0.05)
        assert behind.lag.events == 2
        assert behind.lag.seconds < 0.2


async def test_what_waits_behind_something_that_waited_is_as_old_as_it_is() -> None:
    """When the first of two long transactions ends, the lag is that of the second, to a sixteenth."""
    clock, reader = FakeClock(), Reader(Shard("view", 0, 1), (), batch=10)
    behind = FallingBehind(SimpleNamespace(clock=clock, bell=Bell()), reader, warning_s=60.0)  # type: ignore[arg-type]
    for second in range(86_400):
        behind.saw(sight(10 + second))
        clock._now_s += 1.0
    assert behind.lag.seconds == 86_400.0
    reader.read_upto = 10 + 43_200
    assert 43_200.0 * 15 / 16 <= behind.lag.seconds <= 43_200.0
    assert len(behind._marks) < 300


async def test_a_log_that_has_become_shorter_begins_anew() -> None:
    """What was unread on a server that is gone does not age on its standby."""
    clock, reader = FakeClock(), Reader(Shard("view", 0, 1), (), batch=10)
    behind = FallingBehind(SimpleNamespace(clock=clock, bell=Bell()), reader, warning_s=60.0)  # type: ignore[arg-type]
    behind.saw(sight(50))
    await clock.jump(20.0)
    behind.saw(sight(30))
    await clock.jump(1.0)
    assert behind.lag.seconds == 1.0
