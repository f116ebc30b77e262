"""The SQL schema, for tests that need it without a daemon."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.clock import SystemClock
from supervisor.database.schema.migrate import SCHEMA, Change, bring_up_to_date

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from supervisor.clock import Clock


@asynccontextmanager
async def connection(dsn: str, **options: Any) -> AsyncIterator[Any]:
    """Give a plain connection, closed at the end."""
    connected = await asyncpg.connect(dsn, **options)
    try:
        yield connected
    finally:
        await connected.close(timeout=5)


async def make_schema(dsn: str, *, folder: Path = SCHEMA, clock: Clock | None = None) -> Change:
    """Bring a database's schema up to date."""
    async with connection(dsn) as connected:
        return await bring_up_to_date(
            connected, mode="auto", clock=clock or SystemClock(), rng=Random(7), folder=folder
        )
