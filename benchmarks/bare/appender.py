"""Append so many events a second for so many seconds, each in a transaction of its own."""

import asyncio
import sys
import time

import asyncpg
import uvloop


async def main() -> None:
    """Append."""
    dsn, rate, lasts_s = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    connection = await asyncpg.connect(dsn)
    began_s = time.monotonic()
    for number in range(round(rate * lasts_s)):
        await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
        await connection.execute("select supervisor.append('bench-' || $1::int % 100, 'tick')", number)
    await connection.close()


uvloop.run(main())
