"""An event loop that waits for SIGTERM, and nothing else."""

import asyncio
import os
import signal
import socket

import uvloop


async def main() -> None:
    """Live until SIGTERM."""
    ends = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await ends.wait()


uvloop.run(main())
