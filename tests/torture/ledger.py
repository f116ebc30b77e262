"""The run's own tables: made before it, read back after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.schema import connection, make_schema
from torture.history import Applied, Event, Mark, Turn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

_SQL = Path(__file__).with_name("ledger.sql")


async def create_ledger(dsn: str) -> None:
    """Make the schema `supervisor`, and beside it the run's own, which watches its leases."""
    await make_schema(dsn)
    async with connection(dsn) as connected:
        await connected.execute(_SQL.read_text("utf-8"))


class Rows:
    """What stands in the database at the end of a run."""

    def __init__(self, connected: asyncpg.Connection[Any]) -> None:
        self._connected = connected

    async def events(self) -> list[Event]:
        """Return the event log."""
        rows = await self._fetch("select position, stream, type, data ->> 'uid' from supervisor.event")
        return [Event(*row) for row in rows]

    async def turns(self) -> list[Turn]:
        """Return the take-overs and the work under each lease."""
        rows = await self._fetch(
            "select lease, n, is_take, epoch, incarnation::text, node, extract(epoch from at)::float8 from torture.turn"
        )
        return [Turn(*row) for row in rows]

    async def applied(self) -> list[Applied]:
        """Return what the projections have applied."""
        rows = await self._fetch("select lease, turn, projection, stream, nth, position, uid from torture.applied")
        return [Applied(*row) for row in rows]

    async def buried(self) -> list[tuple[str, int]]:
        """Return the dead letters."""
        rows = await self._fetch("select projection, position from supervisor.dead_letter")
        return [(projection, position) for projection, position in rows]

    async def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._connected.fetch(sql, timeout=600)]


def read_marks(files: Iterable[Path]) -> list[Mark]:
    """Return the marks that holders left in these files."""
    marks = []
    for file in files:
        # A line that its writer was killed in is no mark.
        for line in file.read_text("utf-8").splitlines(keepends=True) if file.exists() else ():
            if line.endswith("\n"):
                lease, epoch, node, at_s = line.split()
                marks.append(Mark(lease, int(epoch), node, float(at_s)))
    return marks
