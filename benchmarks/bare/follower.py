"""What one would write by hand: LISTEN, and a cursor that moves in the transaction that writes."""

import asyncio
import os
import socket
import sys

import asyncpg
import uvloop

_READ = "select position, stream, type, data, at from supervisor.event where position > $1 order by position limit 500"


async def main() -> None:
    """Follow the events until the end."""
    connection = await asyncpg.connect(sys.argv[1])
    rung = asyncio.Event()
    await connection.add_listener("supervisor_event", lambda *_: rung.set())
    cursor = await connection.fetchval("select position from bench_cursor")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    while True:
        rung.clear()
        async with connection.transaction():
            events = await connection.fetch(_READ, cursor)
            if events:
                first, cursor = events[0]["position"], events[-1]["position"]
                await connection.execute(
                    "insert into bench_batch (reader, first, last) values ('bare', $1, $2)", first, cursor
                )
                await connection.execute("update bench_cursor set position = $1", cursor)
        if not events:
            await rung.wait()


uvloop.run(main())
