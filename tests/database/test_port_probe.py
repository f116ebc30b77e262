"""The cheap probe between attempts."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from supervisor.config.dsn import parse_targets
from supervisor.database.port_probe import listening_hosts

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_listens_is_found_cheaply(tmp_path: Path) -> None:
    """Ports and unix sockets alike; what refuses or is not there does not listen."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, socket.socket() as deaf:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(str(tmp_path / ".s.PGSQL.5432"))
        unix.listen()
        deaf.bind(("127.0.0.1", 0))  # bound, and refusing
        port, closed = tcp.getsockname()[1], deaf.getsockname()[1]
        route = parse_targets(
            f"postgresql:///app?host=127.0.0.1,127.0.0.1,{tmp_path},{tmp_path}/none&port={port},{closed},5432,5432", {}
        )
        found = await listening_hosts(route.endpoints, limit_s=5.0)
    assert found == {f"127.0.0.1:{port}", f"{tmp_path}/.s.PGSQL.5432"}
