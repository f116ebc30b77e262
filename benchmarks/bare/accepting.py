"""Say when a server accepts: dial it with pauses of 5 ms until it works, and write that moment to a file."""

import asyncio
import sys
import time
from pathlib import Path

import asyncpg
import uvloop


async def main() -> None:
    """Dial until it works."""
    dsn, path = sys.argv[1], Path(sys.argv[2])
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=2)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            await asyncio.sleep(0.005)
        else:
            break
    part = path.with_suffix(".part")
    part.write_text(f"{time.monotonic():.6f}")
    part.rename(path)
    connection.terminate()


uvloop.run(main())
