"""The thread that notices a blocked event loop: it names the code that blocks it, and no other."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.launching import IDLE, ONE_WORKER, config, status

if TYPE_CHECKING:
    from support.launching import Launcher

_FAST = 'stall_warning = "100ms"'


@pytest.mark.parametrize("block", ["time.sleep(0.7)", "while time.monotonic() < end: pass"])
def test_names_the_line_that_blocks(launch: Launcher, database: str, block: str) -> None:
    """Whether it sleeps or computes: the entry carries the worker's file and line, and its end is logged."""
    work = f"""
        import time
        async def work(ctx):
            end = time.monotonic() + 0.7
            {block}
            await ctx.sleep(3600)
    """
    daemon = launch(config(database, supervisor=_FAST), work)
    told = daemon.wait_for("loop.blocked")
    assert 'workers.py", line 5, in work' in told["stack"]
    assert block in told["stack"]
    assert "workers.py:5 work" in told["place"]
    assert told["blocked_s"] >= 0.1
    assert daemon.wait_for("loop.responsive")["blocked_s"] >= 0.3
    assert status(daemon)["state"] == "running"


def test_two_blocks_at_different_places_are_both_logged(launch: Launcher, database: str) -> None:
    """Folding equal entries does not hide a second place that blocks."""
    work = """
        import time
        async def work(ctx):
            time.sleep(0.3)
            await ctx.sleep(0.15)
            time.sleep(0.4)
            await ctx.sleep(3600)
    """
    daemon = launch(config(database, supervisor=_FAST), work)
    daemon.wait_until(lambda: len({entry["place"] for entry in _blocks(daemon.entries)}) == 2, "two places")


def test_the_worker_that_blocks_is_named(launch: Launcher, database: str) -> None:
    """The entry bears the name of the worker whose run it is, replicas too; a callback outside any run has none."""
    work = """
        import asyncio, time
        async def work(ctx):
            time.sleep(0.4)
            await ctx.sleep(3600)
        async def calls(ctx):
            await ctx.sleep(1.5)
            asyncio.get_running_loop().call_soon(time.sleep, 0.5)
            await ctx.sleep(3600)
    """
    workers = (
        ONE_WORKER + '[workers.twins]\nrun = "workers:calls"\nreplicas = 2\n[workers.idle]\nrun = "workers:work"\n'
    )
    daemon = launch(config(database, supervisor=_FAST, workers=workers), work)
    names = {"main", "idle", None}
    daemon.wait_until(lambda: {entry.get("worker") for entry in _blocks(daemon.entries)} == names, f"blocks of {names}")
    assert daemon.stop() == 0


def _blocks(entries: list[dict[str, str]]) -> list[dict[str, str]]:
    return [entry for entry in entries if entry["event"] == "loop.blocked"]


def test_a_suspended_process_blames_no_code(launch: Launcher, database: str) -> None:
    """After SIGSTOP and SIGCONT the watchdog logs that the process did not run, and blames no code."""
    daemon = launch.ready(config(database, supervisor=_FAST))
    daemon.signal(signal.SIGSTOP)
    time.sleep(0.6)
    daemon.signal(signal.SIGCONT)
    assert daemon.wait_for("process.suspended")["suspended_s"] >= 0.4
    assert status(daemon)["state"] == "running"
    assert not daemon.said("loop.blocked")
    assert daemon.stop() == 0


def test_code_that_holds_the_interpreters_lock_is_noticed(launch: Launcher, database: str) -> None:
    """While C code keeps the interpreter's lock nothing can be logged; afterwards it is."""
    work = """
        import ctypes
        async def work(ctx):
            ctypes.PyDLL(None).usleep(700_000)
            await ctx.sleep(3600)
    """
    daemon = launch(config(database, supervisor=_FAST), work)
    told = daemon.wait_for("loop.blocked")
    assert told["blocked_s"] >= 0.2
    assert "interpreter's lock" in told["reason"]
    assert "place" not in told
    assert daemon.stop() == 0
    assert not daemon.said("process.suspended")


def test_an_idle_loop_is_not_blocked(launch: Launcher, database: str) -> None:
    """A loop that has nothing to do answers the watchdog each time."""
    daemon = launch.ready(config(database, supervisor='stall_warning = "2s"'), IDLE)
    time.sleep(4.5)
    assert daemon.stop() == 0
    assert not daemon.said("loop.blocked")
