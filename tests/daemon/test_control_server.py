"""The control socket: for its owner alone, and unimpressed by whatever connects to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import IDLE, config, request, status, worker_row
from support.proxy import Proxy

from supervisor.cli.control_client import NoDaemon, send_request

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import Daemon
    from support.launching import Launcher


def _path(daemon: Daemon) -> Path:
    return daemon.folder / "state" / "control.sock"


def _connect(daemon: Daemon) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(30)
    folder = os.open(_path(daemon).parent, os.O_PATH)
    try:
        client.connect(f"/proc/self/fd/{folder}/control.sock")
    finally:
        os.close(folder)
    return client


def test_only_its_owner_may_use_it(launch: Launcher, database: str) -> None:
    """The socket has mode 0600 whatever the umask, and is gone after a clean stop."""
    old = os.umask(0)
    try:
        daemon = launch.ready(config(database))
    finally:
        os.umask(old)
    assert stat.S_IMODE(_path(daemon).stat().st_mode) == 0o600
    assert daemon.stop() == 0
    assert not _path(daemon).exists()


def test_a_socket_left_behind_by_a_crash_is_replaced(launch: Launcher, database: str) -> None:
    """After kill -9 the next start takes the path over, and commands find the new daemon."""
    daemon = launch.ready(config(database))
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert _path(daemon).exists()
    with pytest.raises(NoDaemon, match="no daemon listens"):
        status(daemon)
    again = launch.ready(config(database))
    assert status(again)["pid"] == again.pid
    assert again.stop() == 0


def test_a_second_daemon_at_the_same_path_is_refused(launch: Launcher, database: str) -> None:
    """It ends with 75 and names the first one's pid, which does not notice, even while it is frozen."""
    daemon = launch.ready(config(database))
    daemon.signal(signal.SIGSTOP)
    second = launch(config(database))
    assert second.wait() == 75
    reason = second.said("daemon.stopping")[0]["reason"]
    assert f"pid {daemon.pid}" in reason
    assert "supervisor.control" in reason
    daemon.signal(signal.SIGCONT)
    assert status(daemon)["pid"] == daemon.pid
    assert daemon.stop() == 0


def test_a_path_longer_than_a_socket_allows_works(launch: Launcher, database: str) -> None:
    """107 bytes are no limit: neither for the daemon nor for the commands."""
    deep = "/".join(["a-rather-long-name-of-a-folder"] * 6)
    daemon = launch(config(database), folder=deep)
    daemon.wait_for("daemon.ready")
    assert len(str(_path(daemon))) > 150
    assert status(daemon)["pid"] == daemon.pid
    assert daemon.run_command("status").returncode == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b"null\n",
        b'"status"\n',
        b"{}\n",
        b'{"command": 7}\n',
        b'{"command": "pause"}\n',
        b'{"command": "pause", "worker": ["x"]}\n',
        b'{"command": "explode"}\n',
        b"\xff\xfe\x00\n",
        b"[" * 10_000 + b"\n",
        b"1" * 10_000 + b"\n",
    ],
    ids=range(13),
)
def test_garbage_gets_an_answer_or_a_closed_door(garbage_daemon: Daemon, garbage: bytes) -> None:
    """Nonsense is answered as such, and the daemon says nothing about it."""
    with _connect(garbage_daemon) as client:
        client.sendall(garbage)
        answer = json.loads(client.makefile().readline())
    assert answer["ok"] is False
    assert answer["error"]
    assert not garbage_daemon.said("control.failed")


@pytest.fixture(scope="module")
def garbage_daemon(tmp_path_factory: pytest.TempPathFactory, shared_postgres: Any) -> Any:
    """One daemon for all garbage: it must not mind."""
    from support.launching import launching

    with launching(tmp_path_factory.mktemp("garbage")) as launcher:
        yield launcher.ready(config(shared_postgres.dsn()))


def test_an_endless_line_is_cut_off(garbage_daemon: Daemon) -> None:
    """A request without an end is refused at its limit, not collected for ever."""
    with _connect(garbage_daemon) as client:
        try:
            for _ in range(1000):
                client.sendall(b"x" * 65536)
            assert client.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert status(garbage_daemon)["state"] == "running"


def test_clients_that_hang_disturb_nobody(garbage_daemon: Daemon) -> None:
    """Half requests, clients that say nothing, and those that never read: others are served meanwhile."""
    clients = [_connect(garbage_daemon) for _ in range(30)]
    try:
        for client in clients[:10]:
            client.sendall(b'{"command": "sta')
        for client in clients[10:20]:
            client.sendall(b'{"command": "status"}\n')
        assert status(garbage_daemon)["state"] == "running"
    finally:
        for client in clients:
            client.close()


def test_a_thousand_connections(garbage_daemon: Daemon) -> None:
    """A thousand clients at once are too many for nobody but themselves."""
    clients: list[socket.socket] = []
    try:
        for _ in range(1000):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            clients.append(client)
            try:
                client.connect(str(_path(garbage_daemon)))
            except BlockingIOError:
                time.sleep(0.001)
    finally:
        for client in clients:
            client.close()
    assert status(garbage_daemon)["state"] == "running"
    assert worker_row(garbage_daemon)["runs"] == 1


@pytest.mark.parametrize("kind", ["a file in the way", "no such file system"])
def test_a_folder_that_cannot_be_made_is_a_clear_error(
    launch: Launcher, database: str, tmp_path: Path, kind: str
) -> None:
    """Where no socket can be made the start ends with 78 and says what to do."""
    control = tmp_path / "file" / "control.sock" if kind == "a file in the way" else "/proc/nothing/control.sock"
    (tmp_path / "file").touch()
    daemon = launch(config(database, supervisor=f'control = "{control}"'))
    assert daemon.wait() == 78
    faults = daemon.said("config.invalid")[0]["faults"]
    assert str(control) in faults
    assert "supervisor.control" in faults
    assert "Choose a folder" in faults


def test_answers_while_the_daemon_connects(launch: Launcher) -> None:
    """`status` works from the start on; orders are told to come later; a reload waits for READY."""
    with Proxy(1) as proxy:
        proxy.black_hole()
        daemon = launch(config(f"postgresql://x@127.0.0.1:{proxy.port}/x"))
        daemon.wait_for("database.connecting")
        now = status(daemon)
        assert (now["state"], now["ready"], now["workers"]) == ("starting", False, [])
        assert now["status"].startswith("Connecting to 127.0.0.1:")
        assert request(daemon, "pause", worker="main")["error"] == "the workers have not been started yet"
        with pytest.raises(NoDaemon, match="did not answer within"):
            send_request(str(_path(daemon)), None, {"command": "reload"}, limit_s=0.2)
        assert daemon.stop() == 0


def test_orders_for_one_worker(launch: Launcher, database: str) -> None:
    """A worker is paused, resumed and restarted; a name that is none gets the nearest one."""
    daemon = launch.ready(config(database), IDLE)
    assert "did you mean 'main'" in request(daemon, "pause", worker="mian")["error"]
    assert request(daemon, "pause", worker="main")["ok"]
    daemon.wait_for("worker.paused")
    assert worker_row(daemon)["state"] == "paused"
    assert request(daemon, "resume", worker="main")["ok"]
    daemon.wait_for("worker.unpaused")
    mark = daemon.mark
    assert request(daemon, "restart", worker="main")["ok"]
    daemon.wait_for("worker.stopped", after=mark)
    row = worker_row(daemon)
    assert (row["state"], row["runs"]) == ("running", 3)


def test_restart_revives_an_exhausted_worker(launch: Launcher, database: str) -> None:
    """A worker that used up its restarts degrades the daemon; after it is mended, `restart` brings it back."""
    work = """
        import pathlib
        async def work(ctx):
            if not pathlib.Path(__file__).with_name("mended").exists():
                raise ValueError("not mended")
            await ctx.sleep(3600)
    """
    text = '[workers.main]\nrun = "workers:work"\nmax_restarts = 1\nbackoff = { initial = "1ms" }\n'
    daemon = launch(config(database, workers=text), work)
    daemon.wait_for("worker.exhausted")
    now = status(daemon)
    assert (now["state"], now["status"].split(" on ")[0]) == (
        "degraded",
        "Degraded: 1 of 1 worker is down (main: exhausted)",
    )
    assert now["workers"][0]["last_error"] == "ValueError: not mended"
    (daemon.folder / "mended").touch()
    assert daemon.run_command("restart", "main").stdout == "main: restarted\n"
    assert status(daemon)["state"] == "running"


def test_a_removed_socket_is_made_again(launch: Launcher, database: str) -> None:
    """Something cleared the folder away: the daemon listens again, and says that it had to."""
    daemon = launch.ready(config(database))
    socket_path = daemon.folder / "state" / "control.sock"
    socket_path.unlink()
    daemon.wait_for("control.failed")
    daemon.wait_until(socket_path.exists, "socket")
    assert daemon.status()["ready"]
    assert daemon.stop() == 0
    assert not socket_path.exists()
