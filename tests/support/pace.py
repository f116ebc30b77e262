"""How fast the machine is at this moment, measured in the same run, for what has to happen soon."""

from __future__ import annotations

import subprocess
import sys
import time

import asyncpg

_TIMES = 3
# Of a soon that is counted in steps of this size, some thirty are room enough on a machine that is busy.
_STEPS = 30


async def slack_s(dsn: str) -> float:
    """Return what to add to a time limit: thirty times a connection and a statement take now.

    About 0.3 s on an idle machine, and more in proportion where others work.
    """
    took_s = []
    for _ in range(_TIMES):
        began_s = time.monotonic()
        connection = await asyncpg.connect(dsn, timeout=30)
        await connection.fetchval("select 1")
        await connection.close()
        took_s.append(time.monotonic() - began_s)
    return _STEPS * max(took_s)


def process_slack_s() -> float:
    """Return the same for a process: five times what starting one takes now, about half a second if nobody works."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncpg, uvloop"], check=True)
    return 5 * (time.monotonic() - began_s)
