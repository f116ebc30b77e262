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

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor import Context, Event

NODE = f"{os.environ.get('TORTURE_NODE')}@{socket.gethostname()}:{os.getpid()}"
TAIL_S = 1.2
_WORK = "select torture.work($1, $2, $3, $4)"
# A transaction of its own, which now and then lasts.
_WORK_FENCED = """
    select case when supervisor.fence($5, $2, $3) is not null then torture.work($1, $2, $3, $4) end,
        pg_sleep(case when random() < 0.1 then 0.2 else 0 end)
"""
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


async def stubborn(ctx: Context) -> None:
    """Service: writes on a connection of its own, and goes on when it is cancelled: nothing but the fence stops it."""
    lease = ctx.lease
    assert lease is not None
    connection: asyncpg.Connection[Any] | None = None
    end_s = float("inf")
    while time.monotonic() < end_s:
        try:
            if connection is None:
                connection = await asyncpg.connect(ctx.settings["dsn"], timeout=0.3, command_timeout=0.5)
            await connection.execute(_WORK_FENCED, lease.name, lease.epoch, lease.incarnation, NODE, lease.id)
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            end_s = min(end_s, time.monotonic() + TAIL_S / 2)
            connection = _drop(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            connection = _drop(connection)
            await asyncio.sleep(0.05)
    _drop(connection)


def _drop(connection: asyncpg.Connection[Any] | None) -> asyncpg.Connection[Any] | None:
    # Whatever else one does with a connection after a cancel waits for the server.
    if connection is not None:
        connection.terminate()
    return None


async def tick(ctx: Context) -> None:
    """Periodic: one fenced transaction for each tick."""
    await _work(ctx)


async def _work(ctx: Context) -> None:
    lease = ctx.lease
    assert lease is not None
    async with ctx.transaction() as connection:
        await connection.execute(_WORK, lease.name, lease.epoch, lease.incarnation, NODE)
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
