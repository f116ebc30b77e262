"""Import what the daemon stands on, connect once, say READY, and wait for SIGTERM."""

import asyncio
import os
import signal
import socket
import sys

import asyncpg
import structlog
import uvloop


async def main() -> None:
    """Live until SIGTERM."""
    loop = asyncio.get_running_loop()
    ends = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ends.set)
    log = structlog.get_logger()
    connection = await asyncpg.connect(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await ends.wait()
    connection.terminate()
    del log


uvloop.run(main())
