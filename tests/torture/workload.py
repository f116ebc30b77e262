"""The workers of the run: its text is each daemon's module `workers`.

Whatever they do under a lease they note: in the database through `torture.work` and `torture.apply`, outside of it as
a line of a file.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor import Context, Event

NODE = f"{os.environ.get('TORTURE_NODE')}@{socket.gethostname()}:{os.getpid()}"
TAIL_S = 1.2
_APPLY = "select torture.apply($1, $2, $3, $4, $5, $6, $7, $8)"


async def lamp(ctx: Context) -> None:
    """Service: active outside of the database alone, until it is cancelled, and for a moment longer."""
    lease = ctx.lease
    assert lease is not None
    sign = f"{lease.name} {lease.epoch} {NODE}"
    marks = os.open(os.environ["TORTURE_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        while True:
            await _mark(marks, sign)
    finally:
        # As a worker that puts things in order at its end: well within its grace, but not at once.
        end_s = time.monotonic() + TAIL_S
        while time.monotonic() < end_s:
            await _mark(marks, sign)
        os.close(marks)


async def _mark(marks: int, sign: str) -> None:
    os.write(marks, f"{sign} {time.monotonic():.6f}\n".encode())
    await asyncio.sleep(0.02)


async def beat(ctx: Context) -> None:
    """Service: one fenced transaction after the other."""
    while not ctx.stopping:
        await _work(ctx)
        await ctx.sleep(0.05)


async def tick(ctx: Context) -> None:
    """Periodic: one fenced transaction for each tick."""
    await _work(ctx)


async def _work(ctx: Context) -> None:
    lease = ctx.lease
    assert lease is not None
    async with ctx.transaction() as connection:
        await connection.execute(
            "select torture.work($1, $2, $3, $4)", lease.name, lease.epoch, lease.incarnation, NODE
        )
        await _dawdle()


async def apply(ctx: Context, events: Sequence[Event]) -> None:
    """Projection: notes each event in the transaction that moves the checkpoint."""
    lease = ctx.lease
    assert lease is not None
    if any(event.type == "poison" for event in events) and ctx.settings.get("chokes"):
        raise ValueError("poison")
    rows = [(event.stream, event.position, event.data["uid"]) for event in events]
    streams, positions, uids = map(list, zip(*rows, strict=True))
    await ctx.tx.execute(_APPLY, lease.name, lease.epoch, lease.incarnation, NODE, ctx.name, streams, positions, uids)
    await _dawdle()


async def _dawdle() -> Any:
    """Stay in the transaction for a while, now and then: what disturbs the node shall find it there."""
    if random.random() < 0.05:
        await asyncio.sleep(random.uniform(0.0, 0.5))
