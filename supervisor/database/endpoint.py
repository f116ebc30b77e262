"""Whether anything listens at the hosts of a connection string."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.config.dsn import Endpoint


async def listening(endpoints: Sequence[Endpoint], *, limit_s: float) -> frozenset[str]:
    """Return the addresses of the endpoints at which something accepts connections.

    This is the cheap check between two attempts: it says nothing, asks nothing and logs nothing on
    the server. An address that neither accepts nor refuses within `limit_s` does not accept.
    """
    accepted: list[str] = []

    async def look(endpoint: Endpoint) -> None:
        for host, port in endpoint.probes:
            if await _accepts(host, port, limit_s):
                accepted.append(endpoint.address)
                return

    async with asyncio.TaskGroup() as group:
        for endpoint in endpoints:
            group.create_task(look(endpoint), name=f"check {endpoint.address}")
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
