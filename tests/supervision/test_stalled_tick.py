"""A tick that takes too long."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from support.workers import ScriptedWorker, forever, periodic, running

if TYPE_CHECKING:
    from supervisor.workers.context import Context


async def test_a_tick_over_its_limit_is_cancelled_and_a_failure() -> None:
    """It is logged with the place where it waited, counts as a failure, and the next tick comes."""
    worker = ScriptedWorker(forever)
    async with running((periodic(every_s=60.0, stall_timeout_s=5.0), worker)) as stage:
        await stage.clock.jump(5.0)
        stalled = next(fields for event, _, fields in stage.said if event == "worker.stalled")
        assert "in forever" in stalled["stack"]
        row = stage.row("tidy")
        assert (row["failures"], row["state"]) == (1, "waiting")
        assert "5 s" in row["last_error"]
        assert "worker.failed" not in stage.events()
        await stage.clock.jump(55.0)
        assert worker.runs == 2


async def test_ticks_never_overlap_even_when_one_does_not_end() -> None:
    """A tick that swallows its cancellation is named, and the next comes only when it has ended."""
    may_end, busy, most = asyncio.Event(), 0, 0

    async def tick(_: Context) -> None:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        busy -= 1

    worker = ScriptedWorker(tick, *[None] * 9)
    spec = periodic(every_s=10.0, stall_timeout_s=5.0)
    async with running((spec, worker)) as stage:
        await stage.clock.jump(600.0)
        assert (worker.runs, stage.state("tidy"), stage.row("tidy")["abandoned"]) == (1, "abandoned", 1)
        await stage.supervisor.restart("tidy")
        await stage.clock.jump(60.0)
        assert (worker.runs, stage.state("tidy")) == (1, "abandoned")
        may_end.set()
        await stage.clock.jump(1.0)
        assert (worker.runs, stage.row("tidy")["abandoned"]) == (2, 0)
        assert most == 1
