"""Whatever a worker does, it concerns that worker alone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import FakeClock, settle
from support.workers import ScriptedWorker, ended, forever, periodic, running, service

if TYPE_CHECKING:
    from supervisor.workers.context import Context


async def in_a_group(_: Context) -> None:
    async def child() -> None:
        raise ValueError("in a child")

    async with asyncio.TaskGroup() as group:
        group.create_task(child())


async def cancels_itself(_: Context) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await forever()


async def forgets_to_await(_: Context) -> Any:
    return forever()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message either")


FAILURES = [
    ValueError("broken"),
    SystemExit(3),
    KeyboardInterrupt(),
    BaseExceptionGroup("several", [SystemExit(1), ValueError("x")]),
    asyncio.CancelledError(),
    GeneratorExit(),
    StopAsyncIteration(),
    MemoryError(),
    TimeoutError(),
    Unprintable(),
    in_a_group,
    cancels_itself,
    forgets_to_await,
]


@pytest.mark.parametrize("restart", ["always", "on-failure", "never"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: getattr(f, "__name__", type(f).__name__))
async def test_a_failure_stays_with_its_worker(restart: str, failure: Any) -> None:
    """Whatever a worker raises is logged, its policy decides what follows, and its sibling does not notice."""
    worker, sibling = ScriptedWorker(failure), ScriptedWorker()
    spec = service(restart=restart)
    async with running((spec, worker), (service("sibling"), sibling)) as harness:
        assert harness.state("mail") == ("failed" if restart == "never" else "waiting")
        assert harness.events().count("worker.failed") == 1
        assert harness.row("mail")["failures"] == 1
        assert harness.row("mail")["last_error"]
        await harness.clock.jump(1.0)
        assert worker.runs == (1 if restart == "never" else 2)
        assert sibling.runs == 1
        assert harness.state("sibling") == "running"


@pytest.mark.parametrize(
    ("restart", "state"), [("always", "waiting"), ("on-failure", "finished"), ("never", "finished")]
)
@pytest.mark.parametrize("result", [None, 42])
async def test_a_service_that_returns(restart: str, state: str, result: object) -> None:
    """A service that ends by itself is started again only under `always`; what it returns means nothing."""
    async with running((service(restart=restart), ScriptedWorker(result))) as harness:
        assert harness.state("mail") == state
        assert harness.row("mail")["failures"] == 0


async def test_an_async_generator_by_mistake_is_a_failure() -> None:
    """A function that turns out to be no coroutine function is reported as the kind of object that it returned."""

    async def ticks(_: Context) -> Any:
        yield 1

    async with running((service(), ticks)) as harness:
        assert "async_generator" in harness.row("mail")["last_error"]


async def test_a_thousand_failures_on_the_first_line() -> None:
    """A worker that can never run is given up after its allowance, with a handful of entries."""
    worker = ScriptedWorker(*[ImportError("never")] * 1000)
    async with running((service(window_s=3600.0), worker)) as harness:
        for _ in range(100):
            await harness.clock.jump(60.0)
        assert worker.runs == 11
        assert harness.state("mail") == "exhausted"
        assert harness.exits == []
        assert harness.events()[-1] == "worker.exhausted"
        assert len(harness.events()) < 30


async def test_exhausted_may_end_the_daemon() -> None:
    """With `exhausted = "exit"` the daemon is asked to exit, once, with the reason."""
    spec = service(max_restarts=0, exhausted="exit")
    async with running((spec, ScriptedWorker(ValueError))) as harness:
        assert len(harness.exits) == 1
        assert "mail" in str(harness.exits[0])


async def test_a_crashed_worker_restarts_after_its_backoff_and_not_before() -> None:
    """A crashed worker runs again after its backoff, and not before."""
    worker = ScriptedWorker(ValueError)
    async with running((service(), worker)) as harness:
        await harness.clock.jump(0.99)
        assert worker.runs == 1
        await harness.clock.jump(0.01)
        assert worker.runs == 2
        assert harness.events() == ["worker.started", "worker.failed", "worker.restarting"]


async def test_replicas_have_histories_of_their_own() -> None:
    """One replica's failures exhaust that replica alone."""
    calls = 0

    async def first_fails(_: Context) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        await forever()

    async with running((service(replicas=3, max_restarts=0), first_fails)) as harness:
        assert harness.instances_by_state() == {"exhausted": 1, "running": 2}
        assert harness.row("mail")["state"] == "exhausted"
        assert harness.row("mail")["running"] == 2


async def test_secrets_do_not_reach_the_status() -> None:
    """A password in an error's message is not shown."""
    error = OSError("cannot reach postgresql://app:hunter2@db/app")
    async with running((service(), ScriptedWorker(error))) as harness:
        assert "hunter2" not in str(harness.supervisor.status())


class Stubborn:
    """Ignores every cancellation until the test, which could not end otherwise, lets it go."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def swallow(self, _: Context) -> None:
        while not self.may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.may_end.wait()


async def test_a_worker_that_swallows_its_cancellation_is_abandoned() -> None:
    """It is logged with its stack at its deadline and counted in the status, and a restart runs beside it."""
    stubborn = Stubborn()
    worker = ScriptedWorker(stubborn.swallow)
    async with running((service(stop_timeout_s=5.0), worker)) as harness:
        restart = asyncio.get_running_loop().create_task(harness.supervisor.restart("mail"))
        await harness.clock.jump(4.9)
        assert harness.state("mail") == "stopping"
        await harness.clock.jump(0.2)
        await restart
        abandoned = next(fields for event, _, fields in harness.said if event == "worker.abandoned")
        assert "swallow" in abandoned["stack"]
        assert "in Event.wait" in abandoned["stack"]
        assert worker.runs == 2
        assert harness.row("mail")["abandoned"] == 1
        assert harness.state("mail") == "running"
        assert await ended(harness.supervisor.stop(), harness.clock) == ["mail"]
        stubborn.may_end.set()


async def test_a_worker_that_swallows_in_ctx_sleep_does_not_turn_hot() -> None:
    """A worker that swallows the cancellation of `ctx.sleep` in a loop really sleeps between two of them."""
    turns, may_end = 0, False

    async def stubborn(ctx: Context) -> None:
        nonlocal turns
        while not may_end:
            turns += 1
            with contextlib.suppress(asyncio.CancelledError):
                await ctx.sleep(0)

    clock = FakeClock()
    async with running((service(stop_timeout_s=5.0), ScriptedWorker(stubborn)), clock=clock) as harness:
        await harness.supervisor.pause("mail")
        await clock.jump(5.0)
        assert turns < 60
        await clock.jump(3.0)
        assert harness.state("mail") == "abandoned"
        assert turns < 100
        may_end = True


async def test_an_error_during_the_stop_is_logged() -> None:
    """An error while a worker cleans up is logged, and the stop goes on."""

    async def untidy(_: Context) -> None:
        try:
            await forever()
        finally:
            raise ValueError("cannot tidy up")

    async with running((service(), ScriptedWorker(untidy))) as harness:
        await harness.supervisor.pause("mail")
        await settle()
        assert harness.state("mail") == "paused"
        assert "cannot tidy up" in harness.row("mail")["last_error"]
        assert harness.events().count("worker.failed") == 1


async def test_a_periodic_worker_that_returns_runs_on_under_never() -> None:
    """For a tick, returning is success whatever `restart` says; a failed one ends it under `never`."""
    worker = ScriptedWorker(None, None, ValueError)
    async with running((periodic(restart="never", every_s=10.0), worker)) as harness:
        await harness.clock.jump(15.0)
        assert (worker.runs, harness.state("tidy")) == (2, "scheduled")
        await harness.clock.jump(60.0)
        assert (worker.runs, harness.state("tidy")) == (3, "failed")
