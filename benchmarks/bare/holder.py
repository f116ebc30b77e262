"""Wait in the server for a session lock, commit under it fifty times a second, and write down when."""

import asyncio
import os
import socket
import sys
import time

import asyncpg
import uvloop


async def main() -> None:
    """Live until the end."""
    dsn, path = sys.argv[1], sys.argv[2]
    connection = await asyncpg.connect(dsn)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await connection.execute("select pg_advisory_lock(1)")
    record = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        await connection.execute("insert into bench_commit (worker, epoch) values ('bare', $1)", os.getpid())
        os.write(record, b"%.6f %d\n" % (time.monotonic(), os.getpid()))
        await asyncio.sleep(0.02)


uvloop.run(main())
