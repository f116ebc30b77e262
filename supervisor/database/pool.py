"""The pooled connections of one uninterrupted time with one database."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from supervisor.database.gate import Gate


class PoolRetired(SupervisorError):
    """The pool ended while a connection was being made for it; there is another one, or will be."""


class Pool:
    """An asyncpg pool whose connections are made through the gate, and which ends with an outage.

    asyncpg hands out half-open connections and waits for frozen ones, so that a pool which went through
    an outage is not to be trusted: it is retired as a whole, and a new one takes its place.

    Attributes:
        is_retired: Whether it has ended.
    """

    def __init__(self, gate: Gate) -> None:
        self.is_retired = False
        self._gate = gate
        self._pool = asyncpg.create_pool(
            min_size=gate.config.pool_min,
            max_size=gate.config.pool_max,
            connect=self._dial,
        )

    async def open(self) -> Pool:
        """Open the pool's first connections; raise what the driver raises when there are none to be had."""
        await self._pool
        return self

    async def acquire(self) -> Any:
        """Return a connection; raise `PoolRetired` or what the driver raises."""
        try:
            connection = await self._pool.acquire()
        except asyncpg.InterfaceError as error:
            if self.is_retired:
                raise PoolRetired from error
            raise
        if self.is_retired:
            # It had queued for a connection while the pool was retired: the statement belongs to the new one.
            await self.release(connection, limit_s=self._gate.config.connect_timeout_s)
            raise PoolRetired
        return connection

    async def release(self, connection: Any, *, limit_s: float) -> None:
        """Give a connection back; what goes wrong with it then costs the connection and no more."""
        try:
            await self._pool.release(connection, timeout=limit_s)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            # asyncpg has already ended a connection that could not be reset.
            self._gate.suspect()

    def terminate(self) -> None:
        """End every connection now; statements in flight raise."""
        self.is_retired = True
        self._pool.terminate()

    async def drain(self) -> None:
        """Close when every connection has been given back."""
        self.is_retired = True
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            await self._pool.close()

    @property
    def size(self) -> int:
        """How many connections are open."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return self._pool.get_idle_size()

    async def _dial(self, *_: Any, **options: Any) -> Any:
        """Open a connection to the host that the gate is connected to: it has proven itself."""
        link = self._gate.link
        if self.is_retired or link is None:
            raise PoolRetired
        return await self._gate.dialer.dial(link.endpoint, **options)
