"""A real pgbouncer before a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Literal

import pytest
from support.postgres import free_port, hand_over, server_home, unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres

PROGRAM = "/usr/sbin/pgbouncer"
_LIMIT_S = 10.0


def need_pgbouncer() -> None:
    """Skip the test where there is none, except where every test has to run."""
    if os.access(PROGRAM, os.X_OK) or shutil.which("pgbouncer"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("pgbouncer is missing")
    pytest.skip("needs pgbouncer")


@contextlib.contextmanager
def pgbouncer(
    postgres: Postgres, mode: Literal["session", "transaction", "statement"], **settings: object
) -> Iterator[str]:
    """Run a pgbouncer before a server; give the connection string that goes through it."""
    need_pgbouncer()
    with server_home() as home:
        hand_over(home)
        port = free_port()
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": mode,
            "default_pool_size": 20,
            "max_client_conn": 100,
            **settings,
        }
        lines = [f"{name} = {value}" for name, value in options.items()]
        path = home / "pgbouncer.ini"
        target = f"postgres = host=127.0.0.1 port={postgres.port} user=postgres"
        path.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines]) + "\n")
        hand_over(path)
        log = (home / "pgbouncer.log").open("w")
        process = subprocess.Popen([*unprivileged(), PROGRAM, path], stdout=log, stderr=log)
        try:
            _wait_until_it_listens(port)
            yield postgres.dsn(port=port)
        finally:
            process.terminate()
            process.wait(10)
            log.close()


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), _LIMIT_S):
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)
