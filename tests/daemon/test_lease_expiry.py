"""Nothing runs under a lease that has passed on, not even when the event loop is blocked."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from support.launching import config

from supervisor.leases.timing import IDLE_SESSION_TIMEOUT_S

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import Daemon
    from support.launching import Launcher

# Each of them writes the machine's time down for as long as it does something.
BLOCKER = """
    import os, time
    async def work(ctx):
        ctx.log.info("run 1")
        while True:
            with open({marks!r}, "a") as marks:
                marks.write(f"{{os.getpid()}} {{time.monotonic()}}\\n")
            if os.path.exists({fuse!r}):
                time.sleep(0.02)
            else:
                await ctx.sleep(0.02)
"""
WRITER = """
    import asyncio, os, time
    async def work(ctx):
        ctx.log.info("run 1")
        while True:
            with open({marks!r}, "a") as marks:
                marks.write(f"{{os.getpid()}} {{time.monotonic()}}\\n")
            await asyncio.sleep(0.02)
"""
SINGLETON = '[workers.main]\nrun = "workers:work"\nsingleton = true\n'


def pair(launch: Launcher, dsn: str, workers: str) -> tuple[Daemon, Daemon]:
    """Start two daemons, the first of which holds the lease."""
    first = launch.ready(config(dsn, workers=SINGLETON), workers, folder="first")
    first.wait_for("run 1")
    second = launch.ready(config(dsn, workers=SINGLETON), workers, folder="second")
    return first, second


def times_of(marks: Path, daemon: Daemon) -> list[float]:
    """Return when a daemon's worker wrote a mark."""
    rows = (line.split() for line in marks.read_text().splitlines())
    return [float(at) for pid, at in rows if int(pid) == daemon.pid]


def test_a_worker_that_blocks_the_loop_ends_with_its_lease(launch: Launcher, database: str, tmp_path: Path) -> None:
    """The process ends with 70 before the server gives the lock away, though no task of it could run."""
    marks, fuse = tmp_path / "marks", tmp_path / "fuse"
    first, second = pair(launch, database, BLOCKER.format(marks=str(marks), fuse=str(fuse)))
    fuse.touch()
    began_s = time.monotonic()
    assert first.wait() == 70
    assert time.monotonic() - began_s < IDLE_SESSION_TIMEOUT_S
    assert first.wait_for("lease.overrun")["worker"] == "main"
    fuse.unlink()
    second.wait_for("run 1")
    until_s = time.monotonic() + 30.0
    while not (beginning := times_of(marks, second)):
        assert time.monotonic() < until_s
    assert max(times_of(marks, first)) < min(beginning)
    assert second.stop() == 0


def test_a_process_that_was_stopped_for_long_does_nothing_more(launch: Launcher, database: str, tmp_path: Path) -> None:
    """After SIGCONT the worker is cancelled before its next step, and the daemon stands by."""
    marks = tmp_path / "marks"
    first, second = pair(launch, database, WRITER.format(marks=str(marks)))
    first.signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    second.wait_for("run 1", limit_s=40.0)
    first.signal(signal.SIGCONT)
    first.wait_for("lease.lost")
    assert second.wait_for("lease.acquired")["epoch"] == 2
    assert max(times_of(marks, first)) <= stopped_s
    assert second.stop() == 0
    first.wait_for("lease.acquired", epoch=3)
    assert first.stop() == 0
