"""How a worker is stopped: at once when it is idle, at its safe point when it works."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from support.clock import FakeClock, settle
from support.workers import ScriptedWorker, ended, forever, periodic, running, service

from supervisor.journal.events import WARNING

if TYPE_CHECKING:
    from supervisor.workers.context import Context


async def test_an_idle_service_ends_without_time_passing() -> None:
    """A service that waits for something of its own is cancelled at once."""
    async with running((service(), ScriptedWorker())) as harness:
        assert await harness.supervisor.stop() == []
        assert harness.instances_by_state() == {"stopped": 1}
        assert harness.events()[-1] == "worker.stopped"


async def test_a_sleeping_service_ends_at_its_next_sleep() -> None:
    """`while True: work(); await ctx.sleep(1)` does its last round in full and ends at its next sleep."""
    rounds: list[str] = []

    async def loop(ctx: Context) -> None:
        while True:
            rounds.append("started")
            await asyncio.sleep(0)
            rounds.append("done")
            await ctx.sleep(3600)

    async with running((service(), ScriptedWorker(loop))) as harness:
        await harness.supervisor.stop()
        assert rounds == ["started", "done", "started", "done"]
        assert harness.row("mail")["failures"] == 0


async def test_a_service_that_watches_its_stop_finishes_by_itself() -> None:
    """A service that looks at `ctx.stopping` gets its stop timeout and is not cancelled before."""
    clock, ended_well = FakeClock(), False

    async def careful(ctx: Context) -> None:
        nonlocal ended_well
        while not ctx.stopping:
            await clock.sleep(1.0)
        await clock.sleep(5.0)
        ended_well = True

    async with running((service(stop_timeout_s=30.0), ScriptedWorker(careful)), clock=clock) as harness:
        await ended(harness.supervisor.stop(), clock)
        assert ended_well


async def test_a_service_in_the_database_is_waited_for() -> None:
    """A service inside of a database call is cancelled when that call has ended, not within it."""
    async with running((service(stop_timeout_s=30.0), ScriptedWorker())) as harness:
        run = next(harness.supervisor._instances()).current_run
        assert run is not None
        run.stop.call_started()
        stop = asyncio.get_running_loop().create_task(harness.supervisor.stop())
        await harness.clock.jump(20.0)
        assert (harness.state("mail"), harness.row("mail")["running"]) == ("stopping", 1)
        run.stop.call_finished()
        await settle()
        assert (harness.state("mail"), harness.row("mail")["running"]) == ("stopped", 0)
        assert await stop == []


async def test_a_tick_in_flight_gets_the_stop_timeout() -> None:
    """A tick is work: it may finish, and is cancelled when its time is over."""
    clock = FakeClock()

    async def short(_: Context) -> None:
        await clock.sleep(4.0)

    quick, slow = ScriptedWorker(short), ScriptedWorker(forever)
    specs = (periodic("quick", stop_timeout_s=5.0), quick), (periodic("slow", stop_timeout_s=5.0), slow)
    async with running(*specs, clock=clock) as harness:
        stop = asyncio.get_running_loop().create_task(harness.supervisor.stop())
        await clock.jump(3.9)
        assert harness.instances_by_state() == {"stopping": 2}
        await clock.jump(0.2)
        assert harness.state("quick") == "stopped"
        assert harness.state("slow") == "stopping"
        await clock.jump(1.0)
        assert await stop == []
        assert harness.row("slow")["failures"] == 0
        logged = {
            fields["worker"]: (level, fields) for event, level, fields in harness.said if event == "worker.stopped"
        }
        assert (logged["slow"][0], logged["slow"][1]["cancelled_after_s"]) == (WARNING, 5.0)
        assert "cancelled_after_s" not in logged["quick"][1]


async def test_between_ticks_a_periodic_worker_ends_at_once() -> None:
    """Between two ticks nothing is waited for."""
    async with running((periodic(), ScriptedWorker(None))) as harness:
        assert await harness.supervisor.stop() == []


async def test_a_forced_stop_cancels_what_is_waited_for() -> None:
    """A second SIGTERM cancels a tick in flight at once."""
    async with running((periodic(stop_timeout_s=600.0), ScriptedWorker(forever))) as harness:
        stop = asyncio.get_running_loop().create_task(harness.supervisor.stop())
        await settle()
        assert not stop.done()
        harness.supervisor.force_stop()
        await settle()
        assert await stop == []


async def test_children_of_a_group_end_at_their_sleeps() -> None:
    """`ctx.sleep` in a child task ends that child where it is safe, and the group with the last one."""
    done: list[int] = []

    async def child(ctx: Context, number: int) -> None:
        while True:
            done.append(number)
            await ctx.sleep(10)

    async def group(ctx: Context) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child(ctx, 1))
            tasks.create_task(child(ctx, 2))

    async with running((service(), ScriptedWorker(group))) as harness:
        assert await harness.supervisor.stop() == []
        assert done == [1, 2, 1, 2]
        assert harness.row("mail")["failures"] == 0


async def test_a_worker_in_its_backoff_ends_at_once() -> None:
    """Neither a backoff nor an outage keeps the daemon from stopping."""
    async with running(
        (service(), ScriptedWorker(ValueError)), (service("b"), ScriptedWorker(ConnectionError))
    ) as harness:
        harness.database.go_down()
        assert await harness.supervisor.stop() == []


async def test_more_than_twenty_are_stopped_quietly() -> None:
    """Of a great many workers only the first twenty say that they start and stop."""
    workers = [(service(f"w{n}"), ScriptedWorker()) for n in range(50)]
    async with running(*workers) as harness:
        assert harness.events().count("worker.started") == 20
        assert harness.events(above_debug=False).count("worker.started") == 50
        await harness.supervisor.stop()
        assert harness.events().count("worker.stopped") == 20


async def test_a_tick_over_its_limit_is_cancelled_and_a_failure() -> None:
    """It is logged with the place where it waited, counts as a failure, and the next tick comes."""
    worker = ScriptedWorker(forever)
    async with running((periodic(every_s=60.0, stall_timeout_s=5.0), worker)) as harness:
        await harness.clock.jump(5.0)
        stalled = next(fields for event, _, fields in harness.said if event == "worker.stalled")
        assert "in forever" in stalled["stack"]
        row = harness.row("tidy")
        assert (row["failures"], row["state"]) == (1, "waiting")
        assert "5 s" in row["last_error"]
        assert "worker.failed" not in harness.events()
        await harness.clock.jump(55.0)
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
    async with running((spec, worker)) as harness:
        await harness.clock.jump(600.0)
        assert (worker.runs, harness.state("tidy"), harness.row("tidy")["abandoned"]) == (1, "abandoned", 1)
        await harness.supervisor.restart("tidy")
        await harness.clock.jump(60.0)
        assert (worker.runs, harness.state("tidy")) == (1, "abandoned")
        may_end.set()
        await harness.clock.jump(1.0)
        assert (worker.runs, harness.row("tidy")["abandoned"]) == (2, 0)
        assert most == 1
