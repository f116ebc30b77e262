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
