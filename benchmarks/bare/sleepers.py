"""As many tasks as asked for, all asleep, on the imports that the daemon stands on."""

import asyncio
import os
import socket
import sys

import asyncpg
import structlog
import uvloop

USED = (asyncpg, structlog)


async def sleep() -> None:
    """Sleep for ever."""
    await asyncio.get_running_loop().create_future()


async def main() -> None:
    """Start everybody, say READY once all have begun, and stay."""
    tasks = [asyncio.create_task(sleep()) for _ in range(int(sys.argv[1]))]
    await asyncio.sleep(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await asyncio.gather(*tasks)


uvloop.run(main())
