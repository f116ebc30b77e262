"""The tests' own PostgreSQL does what its methods say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.postgres import _is_alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.postgres import Postgres


async def _connect(dsn: str) -> Any:
    return await asyncpg.connect(dsn, timeout=5)


async def test_accepts_over_tcp_and_socket(postgres: Postgres) -> None:
    """Both ways of reaching the server work, and survive a restart at the same address."""
    for _ in range(2):
        for dsn in (postgres.dsn(), postgres.dsn(host="socket")):
            connection = await _connect(dsn)
            assert await connection.fetchval("select 1") == 1
            await connection.close()
        postgres.restart()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_stop_ends_sessions(postgres: Postgres, mode: Any) -> None:
    """A stopped server refuses connections and starts again with its data."""
    postgres.execute("create table kept (n int); checkpoint")
    postgres.stop(mode)
    assert not postgres.is_running
    with pytest.raises(ConnectionRefusedError):
        await _connect(postgres.dsn())
    postgres.start()
    assert postgres.execute("select count(*) from kept") == "0"


def test_kill_leaves_no_child(postgres: Postgres) -> None:
    """A killed server is gone with all its children, and starts again."""
    children = postgres.children()
    assert children
    postgres.kill()
    assert not any(_is_alive(pid) for pid in children)
    postgres.start()


def test_frozen_server_answers_after_the_thaw(postgres: Postgres) -> None:
    """A frozen server answers nobody until it is thawed."""
    postgres.freeze()
    assert not postgres.accepting()
    postgres.thaw()
    assert postgres.accepting()


async def test_password_is_needed_over_tcp(postgres: Postgres) -> None:
    """A role with a password gets in with it and not with another."""
    postgres.add_user("app", "right")
    connection = await _connect(postgres.dsn(user="app", password="right"))
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _connect(postgres.dsn(user="app", password="wrong"))


async def test_config_and_hba_are_reloaded(postgres: Postgres) -> None:
    """A parameter and pg_hba.conf are in force when the call returns."""
    postgres.set_config("work_mem", "3MB")
    assert postgres.execute("show work_mem") == "3MB"
    postgres.set_hba("host all all 127.0.0.1/32 reject")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await _connect(postgres.dsn())
    postgres.reset_hba()
    connection = await _connect(postgres.dsn())
    postgres.set_read_only()
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await connection.execute("create table t ()")
    postgres.set_read_only(False)
    assert postgres.terminate() == 1
    connection.terminate()


def test_standby_is_promoted_and_primary_demoted(postgres: Postgres, standby: Postgres) -> None:
    """The standby follows its primary, refuses writes, and takes over when promoted."""
    postgres.execute("create table t (n int)")
    postgres.demote()
    assert postgres.execute("select pg_is_in_recovery()") == "t"
    assert standby.execute("select pg_is_in_recovery()") == "t"
    standby.promote()
    standby.execute("create table u (n int)")


def test_several_servers(postgres: Postgres, make_postgres: Callable[[], Postgres]) -> None:
    """Further servers have ports and data of their own."""
    other = make_postgres()
    assert other.port != postgres.port
    other.execute("create table only_here ()")
    assert postgres.execute("select to_regclass('only_here') is null") == "t"


async def test_database_is_empty(database: str) -> None:
    """Each test's database on the shared server is fresh."""
    connection = await _connect(database)
    assert await connection.fetchval("select count(*) from pg_class where relnamespace = 'public'::regnamespace") == 0
    await connection.close()


_OWNER = """
import sys
from pathlib import Path
from support.postgres import Postgres
server = Postgres(Path(sys.argv[1]), Path(sys.argv[2]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_server_dies_with_the_test_process(postgres_template: Path, postgres: Postgres) -> None:
    """A test process that is killed takes its servers along."""
    home = postgres.home / "orphan"
    home.mkdir()
    home.chmod(0o755)
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, home, postgres_template],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert _is_alive(pid)
        owner.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
