"""The cheap probe between attempts: does a host begin to listen?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.database.error_class import ErrorClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.config.dsn import Endpoint
    from supervisor.database.error_class import Failure


_TIMEOUT_S = 1.0


class PortProbe:
    """Remembers which hosts accept connections, and notices when one begins to."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._accepting: frozenset[str] | None = None

    async def record(self, failures: Sequence[Failure]) -> None:
        """Record from a failed attempt which hosts accept already."""
        absent = {failure.address for failure in failures if failure.error_class is ErrorClass.NOT_LISTENING}
        silent = {failure.address for failure in failures if failure.error_class is ErrorClass.TIMED_OUT}
        accepting = {failure.address for failure in failures} - absent - silent
        if silent:
            # A frozen server accepts, a black hole does not. Unless it is known which of the two this
            # is, every next probe would take the frozen one for a change.
            known = self._accepting
            accepting |= silent & (await self._listening() if known is None else known)
        self._accepting = frozenset(accepting)

    async def has_new_listener(self) -> bool:
        """Probe, and return whether a host accepts that did not before.

        The first probe after a recovery only records: a server that accepts all the while and drops every connection
        has not just started.
        """
        known = self._accepting
        self._accepting = await self._listening()
        return known is not None and bool(self._accepting - known)

    def reset(self) -> None:
        """Forget what was recorded: the outage is over."""
        self._accepting = None

    async def _listening(self) -> frozenset[str]:
        return await listening_hosts(self._endpoints, limit_s=_TIMEOUT_S)


async def listening_hosts(endpoints: Sequence[Endpoint], *, limit_s: float) -> frozenset[str]:
    """Return the addresses of the endpoints at which something accepts connections.

    It sends nothing, and the server logs nothing. An address that neither accepts nor refuses within `limit_s` does
    not accept.
    """
    accepted: list[str] = []

    async def probe(endpoint: Endpoint) -> None:
        for host, port in endpoint.probes:
            if await _accepts(host, port, limit_s):
                accepted.append(endpoint.address)
                return

    async with asyncio.TaskGroup() as group:
        for endpoint in endpoints:
            group.create_task(probe(endpoint), name=f"probe {endpoint.address}")
    return frozenset(accepted)


async def _accepts(host: str, port: int, limit_s: float) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit_s):
            if host.startswith("/"):
                path = host if ".s.PGSQL." in host else f"{host}/.s.PGSQL.{port}"
                transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
            else:
                transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
    except OSError:
        return False
    transport.abort()
    return True
