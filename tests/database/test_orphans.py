"""What a killed daemon leaves behind: the next start ends it, or waits for it where it cannot be seen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.postgres import unprivileged
from support.store import StoreDaemon, ask, is_alive, running, wait_for_end

from supervisor.database.embedded.orphans import processes_of

if TYPE_CHECKING:
    from collections.abc import Callable

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
# As in another hardened unit: no process of before can be seen or signalled from in there.
_BLINDED = ("unshare", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_server_ends_with_a_killed_daemon(home: Path, run_daemon: Callable[..., StoreDaemon], loop: str) -> None:
    """The server of a daemon that is killed shuts down by itself, and the next daemon finds the data."""
    daemon = run_daemon(loop=loop)
    daemon.kill()
    wait_for_end(daemon.server_pid)
    assert "fast shutdown" in (daemon.path / "server.log").read_text()
    async with running(home) as server:
        assert await ask(server, "select 1") == 1


async def test_next_start_ends_an_orphan(home: Path, run_daemon: Callable[..., StoreDaemon]) -> None:
    """A server that did not notice its daemon's death is ended by the next start, and no child of it is left."""
    daemon = run_daemon()
    os.kill(daemon.server_pid, signal.SIGSTOP)  # the kernel's SIGINT cannot move it
    daemon.kill()
    assert is_alive(daemon.server_pid)
    os.kill(daemon.server_pid, signal.SIGCONT)
    async with running(home) as server:
        assert await ask(server, "select 1") == 1
        assert not is_alive(daemon.server_pid)


async def test_next_start_ends_a_frozen_orphan(home: Path, run_daemon: Callable[..., StoreDaemon]) -> None:
    """An orphan that obeys nothing is killed in bounded time."""
    daemon = run_daemon()
    orphans = processes_of(daemon.path / "data")
    os.kill(daemon.server_pid, signal.SIGSTOP)
    daemon.kill()
    async with running(home, limit_s=0.5) as server:
        assert await ask(server, "select 1") == 1
        assert not any(is_alive(pid) for pid in orphans)


async def test_next_start_ends_children_without_postmaster(home: Path, run_daemon: Callable[..., StoreDaemon]) -> None:
    """Children that outlive a killed postmaster, with its shared memory, do not keep the store from starting."""
    daemon = run_daemon()
    children = [pid for pid in processes_of(daemon.path / "data") if pid != daemon.server_pid]
    assert children
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    os.kill(daemon.server_pid, signal.SIGKILL)
    daemon.kill()
    async with running(home, limit_s=0.5) as server:
        assert await ask(server, "select 1") == 1
        assert not any(is_alive(pid) for pid in children)


def popen(*command: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a process somewhere."""
    return subprocess.Popen(command, cwd=cwd)


async def test_reused_pid_does_not_block(home: Path) -> None:
    """A pid file whose number has gone to another process neither blocks the store nor harms the process."""
    async with running(home / "state") as server:
        pid_file = server.path / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        socket_lock = (server.path / ".s.PGSQL.5432.lock").read_text()
    owner = pid_file.parent.stat()
    # PostgreSQL minds a live process of its own user that is not its parent.
    user = unprivileged() if os.geteuid() == 0 else ()
    with popen(*user, "sleep", "60", cwd=pid_file.parent) as stranger:
        for path, text in ((pid_file, "\n".join(lines)), (server.path / ".s.PGSQL.5432.lock", socket_lock)):
            path.write_text(text.replace(lines[0], str(stranger.pid)))
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(0o600)
        try:
            async with running(home / "state") as server:
                assert await ask(server, "select 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


@as_root
async def test_start_waits_for_an_orphan_out_of_sight(launch_daemon: Callable[..., StoreDaemon]) -> None:
    """A successor that cannot see an orphaned server starts when the last of its processes is gone."""
    orphans = leave_frozen_orphan(launch_daemon())
    successor = launch_daemon(prefix=_BLINDED)
    lock = successor.path / "postgres" / "server.lock"
    wait_until(lambda: openers(lock) - orphans, "the successor has not come to the lock")
    for pid in orphans:
        os.kill(pid, signal.SIGCONT)
    successor.wait()
    assert not any(is_alive(pid) for pid in orphans)
    said = (successor.path / "server.log").read_text()
    assert said.index("database system is shut down") < said.rindex("starting PostgreSQL")
    assert successor.end() == 0


@as_root
async def test_start_gives_up_on_an_orphan_out_of_sight(launch_daemon: Callable[..., StoreDaemon]) -> None:
    """When the orphan stays the start fails in bounded time, says why, and has not touched what is the orphan's."""
    daemon = launch_daemon()
    orphans = leave_frozen_orphan(daemon)
    successor = launch_daemon(prefix=_BLINDED, limit_s=0.3)
    complaint = successor.complaint()
    assert successor.process.wait() == 1
    assert f"an earlier server of the embedded store in {daemon.path}" in complaint
    assert "still runs after 0.3 s where this daemon cannot end it" in complaint
    assert (daemon.path / "data" / "postmaster.pid").exists()
    assert (daemon.path / "server.log").read_text().count("starting PostgreSQL") == 1
    assert all(is_alive(pid) for pid in orphans)


def leave_frozen_orphan(daemon: StoreDaemon) -> set[int]:
    """Kill a daemon whose server cannot move, and return that server's processes."""
    daemon.wait()
    orphans = set(processes_of(daemon.path / "data"))
    for pid in orphans:
        os.kill(pid, signal.SIGSTOP)
    daemon.kill()
    return orphans


def openers(path: Path) -> set[int]:
    """Return the processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or out of reach
            if link.readlink() == path:
                found.add(int(link.parts[2]))
    return found


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that gives no sign by itself."""
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)
