"""What the daemon told, for tests: all levels, before folding, whether a journal is open or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.journal import observe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class LoggedEntry(NamedTuple):
    """One entry."""

    event: str
    level: int
    fields: dict[str, Any]


class Entries:
    """`with Entries() as entries:` collects what is told; `await entries.wait_for("database.lost")` waits for it."""

    def __init__(self) -> None:
        self.all: list[LoggedEntry] = []
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def __enter__(self) -> Self:
        self._stop = observe(self._collect)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def events(self) -> list[str]:
        """The names in the order in which they were told."""
        return [told.event for told in self.all]

    def of(self, event: str, **fields: object) -> list[LoggedEntry]:
        """Return the entries of this name that have these fields."""
        return [told for told in self.all if told.event == event and fields.items() <= told.fields.items()]

    async def wait_for(self, event: str, *, times: int = 1, limit_s: float = 10.0, **fields: object) -> LoggedEntry:
        """Return the `times`-th entry of this name with these fields, told before or from now on."""
        async with asyncio.timeout(limit_s):
            changed = asyncio.Event()
            waiter = (asyncio.get_running_loop(), changed)
            self._waiters.append(waiter)
            try:
                while len(found := self.of(event, **fields)) < times:
                    changed.clear()
                    await changed.wait()
                return found[times - 1]
            finally:
                self._waiters.remove(waiter)

    def _collect(self, event: str, level: int, fields: Mapping[str, Any]) -> None:
        self.all.append(LoggedEntry(event, level, dict(fields)))
        for loop, changed in tuple(self._waiters):
            loop.call_soon_threadsafe(changed.set)
