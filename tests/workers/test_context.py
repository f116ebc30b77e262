"""`ctx`: `ctx.sleep` by the injected clock, ended early by the stop; read-only settings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.clock import FakeClock, settle
from support.workers import SwitchedDatabase, service

from supervisor.stop_signal import StopSignal
from supervisor.workers.context import Context


def make() -> tuple[FakeClock, StopSignal, Context]:
    clock, stop = FakeClock(), StopSignal()
    context = Context(service(settings={"a": 1}), stop=stop, database=SwitchedDatabase(), clock=clock)
    return clock, stop, context


def start(work: Any) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


async def test_sleeps_for_its_time() -> None:
    """Without a stop it returns when the time has passed, and not before."""
    clock, stop, ctx = make()
    task = start(ctx.sleep(10))
    await clock.jump(9.9)
    assert not task.done()
    await clock.jump(0.1)
    assert task.done()
    assert stop.is_cooperative
    assert not stop._notices


async def test_the_stop_ends_it_early() -> None:
    """It returns at once, without an error, and leaves no cancellation behind."""
    _, stop, ctx = make()
    task = start(ctx.sleep(3600))
    await settle()
    stop.set()
    await task
    assert task.cancelling() == 0
    assert ctx.stopping


async def test_a_sleep_after_the_stop_ends_the_worker() -> None:
    """A sleep that begins after the stop is cancelled."""
    _, stop, ctx = make()
    stop.set()
    task = start(ctx.sleep(0))
    await settle()
    assert task.cancelled()


async def test_a_real_cancellation_at_the_same_time_counts() -> None:
    """A cancellation that comes with the stop is not swallowed."""
    _, stop, ctx = make()
    task = start(ctx.sleep(3600))
    await settle()
    stop.set()
    task.cancel()
    await settle()
    assert task.cancelled()


async def test_a_timeout_at_the_same_time_counts() -> None:
    """An `asyncio.timeout` around it that expires with the stop is a TimeoutError, as ever."""
    _, stop, ctx = make()

    async def bounded() -> None:
        async with asyncio.timeout(3600) as limit:
            limits.append(limit)
            await ctx.sleep(7200)

    limits: list[asyncio.Timeout] = []
    task = start(bounded())
    await settle()
    limits[0].reschedule(asyncio.get_running_loop().time() - 1)
    stop.set()
    limits[0]._on_timeout()  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        await task


async def test_a_stop_in_the_same_loop_iteration_as_the_wake_up() -> None:
    """A stop between the timer's end and the worker's next step cancels nothing that comes later."""
    clock, stop, ctx = make()
    after: list[str] = []

    async def work() -> None:
        await ctx.sleep(1)
        await asyncio.sleep(0)
        after.append("worked on")

    task = start(work())
    await settle()
    clock._now_s += 1
    clock._sleepers[0][2].set_result(None)
    stop.set()
    await task
    assert after == ["worked on"]


async def test_settings_are_read_only() -> None:
    """A worker cannot change its configuration."""
    _, _, ctx = make()
    assert ctx.settings["a"] == 1
    with pytest.raises(TypeError):
        ctx.settings["a"] = 2  # type: ignore[index]
    assert ctx.name == "mail"
    assert ctx.log is ctx.log
