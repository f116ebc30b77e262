"""The workers of the measured daemons; they write down what they see, on the clock that all processes share."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor import Context  # noqa: TC001 - as users write it, and `start` pays for it

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor import Event

# Of all instances in this process together.
_begun = 0
_waiting = 0
_done = 0
_go = asyncio.Event()


async def idle(ctx: Context) -> None:
    """Do nothing, until the daemon stops."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError(ctx.name)


async def query(ctx: Context) -> None:
    """Query fifty times a second and write down when each query succeeded."""
    record = _open(ctx)
    while True:
        await ctx.db.fetchval("select 1")
        _note(record)
        await ctx.sleep(0.02)


async def query_in_flight(ctx: Context) -> None:
    """Query, write that down, and be in the middle of a statement from then on; its error ends the run."""
    record = _open(ctx)
    while True:
        await ctx.db.fetchval("select 1")
        _note(record)
        await ctx.db.fetchval("select pg_sleep(25)")


async def query_rarely(ctx: Context) -> None:
    """Query every `pause_s`, at a moment of its own."""
    pause_s = ctx.settings["pause_s"]
    await ctx.sleep(random.uniform(0, pause_s))
    while True:
        await ctx.db.fetchval("select 1")
        await ctx.sleep(pause_s)


async def one_of_many(ctx: Context) -> None:
    """Idle until the file `go` appears, then query once; the first to begin, wait and end all are written down."""
    global _begun, _waiting, _done  # noqa: PLW0603 - counts of the process
    folder, count = ctx.settings["folder"], ctx.settings["count"]
    _begun += 1
    if _begun == 1:
        asyncio.get_running_loop().call_later(0.05, _look_for, Path(folder, "go"))
    if _begun == count:
        _write(folder, "begun")
    await _go.wait()
    _waiting += 1
    if _waiting == count:
        _write(folder, "waiting")
    await ctx.db.fetchval("select 1")
    _done += 1
    if _done in (1, count):
        _write(folder, "first" if _done == 1 else "done")
    await asyncio.get_running_loop().create_future()


async def hold(ctx: Context) -> None:
    """Commit fifty times a second under the lease, and write down when, and under which epoch."""
    record = _open(ctx)
    assert ctx.lease is not None
    epoch = ctx.lease.epoch
    while True:
        async with ctx.transaction() as transaction:
            await transaction.execute("insert into bench_commit (worker, epoch) values ($1, $2)", ctx.name, epoch)
        os.write(record, b"%.6f %d\n" % (time.monotonic(), epoch))
        await ctx.sleep(0.02)


async def project(ctx: Context, events: Sequence[Event]) -> None:
    """Write one row a batch."""
    first, last = events[0].position, events[-1].position
    await ctx.tx.execute("insert into bench_batch (reader, first, last) values ($1, $2, $3)", ctx.name, first, last)


def _look_for(go: Path) -> None:
    if go.exists():
        _go.set()
    else:
        asyncio.get_running_loop().call_later(0.05, _look_for, go)


def _open(ctx: Context) -> int:
    return os.open(Path(ctx.settings["folder"]) / ctx.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(record: int) -> None:
    os.write(record, b"%.6f\n" % time.monotonic())


def _write(folder: str, name: str) -> None:
    part = Path(folder, f"{name}.part")
    part.write_text(f"{time.monotonic():.6f}")
    part.rename(Path(folder, name))
