"""Let as many tasks as asked for query once, through a pool as large as the daemon's; write how long that took."""

import asyncio
import sys
import time
from pathlib import Path

import asyncpg
import uvloop


async def main() -> None:
    """Query, and measure."""
    dsn, count, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=10)
    began_s = time.monotonic()
    await asyncio.gather(*(pool.fetchval("select 1") for _ in range(count)))
    part = path.with_suffix(".part")
    part.write_text(f"{time.monotonic() - began_s:.6f}")
    part.rename(path)
    await pool.close()


uvloop.run(main())
