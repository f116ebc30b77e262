"""The messages that systemd gets over the life of the daemon."""

from __future__ import annotations

import os
import signal
import socket
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from support.launching import IDLE, ONE_WORKER, config, request
from support.notify_socket import NotifySocket, full_socket
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    """A reader at NOTIFY_SOCKET."""
    with NotifySocket(tmp_path / "notify") as reader:
        yield reader


def test_reports_a_whole_life_in_its_order(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """READY once the workers run, RELOADING then READY for a reload, STOPPING at the end; each with its STATUS."""
    daemon = launch.ready(config(database), environ=systemd.environ)
    index = systemd.wait_for("READY")
    assert systemd.messages[index]["STATUS"].startswith("Running 1 worker on 127.0.0.1:")
    before = time.monotonic()
    assert request(daemon, "reload")["ok"]
    index = systemd.wait_for("RELOADING")
    assert before <= int(systemd.messages[index]["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
    systemd.wait_for("READY", after=index)
    assert daemon.stop() == 0
    index = systemd.wait_for("STOPPING")
    assert "SIGTERM" in systemd.messages[index]["STATUS"]
    assert systemd.essence() == ["READY", "RELOADING", "READY", "STOPPING"]


def test_ready_comes_after_the_workers(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """At READY the control socket answers and shows the workers as started."""
    daemon = launch(config(database), environ=systemd.environ)
    systemd.wait_for("READY")
    assert request(daemon, "status")["status"]["workers"][0]["state"] == "running"


def test_says_what_it_waits_for(launch: Launcher, shared_postgres: Postgres, systemd: NotifySocket) -> None:
    """While the start connects, STATUS tells attempt and reason, EXTEND_TIMEOUT keeps systemd waiting, READY waits."""
    with Proxy(shared_postgres.port) as proxy:
        proxy.refuse()
        text = config(
            shared_postgres.dsn(port=proxy.port), database='probe_interval = "50ms"\nstartup = { attempts = 0 }'
        )
        daemon = launch(text, environ=systemd.environ)
        index = systemd.wait_for("STATUS", "attempt 1: ")
        assert "refuses connections" in systemd.messages[index]["STATUS"]
        assert int(systemd.all_of("EXTEND_TIMEOUT_USEC")[0]) >= 10e6
        assert not systemd.all_of("READY")
        proxy.forward()
        systemd.wait_for("READY")
        mark = systemd.mark
        proxy.refuse()
        proxy.cut()
        systemd.wait_for("STATUS", "The database is unreachable", after=mark)
        proxy.forward()
        systemd.wait_for("STATUS", "Running 1 worker", after=mark)
        assert daemon.stop() == 0
        assert systemd.essence() == ["READY", "STOPPING"]


def test_ready_can_come_before_the_database(launch: Launcher, systemd: NotifySocket) -> None:
    """With `ready = "started"` READY does not wait for the first connection, and comes only once."""
    startup = "startup = { attempts = 0 }"
    text = config("postgresql://x@127.0.0.1:1/x", supervisor='ready = "started"', database=startup)
    daemon = launch(text, environ=systemd.environ)
    systemd.wait_for("READY")
    daemon.wait_for("database.connecting")
    assert daemon.stop() == 0
    assert systemd.essence() == ["READY", "STOPPING"]


def test_a_refused_reload_ends_with_ready_too(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """Whatever a reload comes to, READY follows RELOADING; the refusal stands in STATUS until a good one."""
    daemon = launch.ready(config(database), environ=systemd.environ)
    daemon.config.write_text("[supervisor\n")
    assert not request(daemon, "reload")["ok"]
    index = systemd.wait_for("READY", after=systemd.wait_for("RELOADING"))
    assert "The last reload was refused" in systemd.messages[index]["STATUS"]
    daemon.write(config(database))
    mark = systemd.mark
    assert request(daemon, "reload")["ok"]
    index = systemd.wait_for("READY", after=mark)
    assert "refused" not in systemd.messages[index]["STATUS"]
    assert systemd.essence() == ["READY"] + ["RELOADING", "READY"] * 2


def test_a_stop_during_a_reload_is_final(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """When the stop overtakes a reload, no READY follows STOPPING."""
    daemon = launch.ready(config(database), environ=systemd.environ)
    (daemon.folder / "hanging.py").write_text("import time\ntime.sleep(3600)\n")
    daemon.write(config(database, workers=ONE_WORKER + '[workers.hanging]\nrun = "hanging:work"\n'))
    daemon.signal(signal.SIGHUP)
    systemd.wait_for("RELOADING")
    assert daemon.stop() == 0
    systemd.wait_for("STOPPING")
    assert systemd.essence() == ["READY", "RELOADING", "STOPPING"]


def test_a_fatal_end_is_reported_with_its_status(launch: Launcher, systemd: NotifySocket) -> None:
    """What ends a start stands in STATUS, beside the exit status."""
    daemon = launch(config("postgresql://x@127.0.0.1:1/x", database="startup.attempts = 1"), environ=systemd.environ)
    assert daemon.wait() == 69
    index = systemd.wait_for("EXIT_STATUS", "69")
    assert "gave up" in systemd.messages[index]["STATUS"]


def test_a_wrong_configuration_is_reported_too(launch: Launcher, systemd: NotifySocket) -> None:
    """A configuration that cannot be read ends with 78, and systemd shows the first fault."""
    daemon = launch("[database]\ndns = 'x'\n", environ=systemd.environ)
    assert daemon.wait() == 78
    index = systemd.wait_for("EXIT_STATUS", "78")
    assert "database.dns" in systemd.messages[index]["STATUS"]


def test_the_watchdog_is_fed_while_the_database_is_away(
    launch: Launcher, shared_postgres: Postgres, systemd: NotifySocket
) -> None:
    """WATCHDOG=1 comes at half of systemd's limit; an outage is no reason to be killed."""
    with Proxy(shared_postgres.port) as proxy:
        daemon = launch.ready(
            config(shared_postgres.dsn(port=proxy.port)), environ=systemd.environ | {"WATCHDOG_USEC": "100000"}
        )
        mark = systemd.wait_for("WATCHDOG")
        for _ in range(3):
            mark = systemd.wait_for("WATCHDOG", after=mark + 1)
        proxy.refuse()
        proxy.cut()
        daemon.wait_for("database.lost")
        mark = systemd.mark
        for _ in range(5):
            mark = systemd.wait_for("WATCHDOG", after=mark + 1)


def test_the_watchdog_is_not_fed_by_a_blocked_loop(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """While a worker blocks the event loop no WATCHDOG is sent; the draining of a stop is no such thing."""
    work = """
        import asyncio, time
        async def work(ctx):
            ctx.log.info("blocking")
            time.sleep(1)
            ctx.log.info("over")
            while not ctx.stopping:
                await ctx.sleep(0.01)
            ctx.log.info("draining")
            await asyncio.sleep(3600)
    """
    text = config(database, supervisor='stall_warning = "100ms"')
    daemon = launch(text, work, environ=systemd.environ | {"WATCHDOG_USEC": "100000"})
    began = daemon.wait_for("blocking")
    over = daemon.wait_for("over")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("draining")
    mark = systemd.wait_for("STOPPING")
    for field in ("WATCHDOG", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "EXTEND_TIMEOUT_USEC"):
        mark = systemd.wait_for(field, after=mark + 1)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert began["ts"] < over["ts"]
    feedings = [at for at, fields in zip(systemd.moments, systemd.messages, strict=True) if "WATCHDOG" in fields]
    assert max(later - earlier for earlier, later in pairwise(feedings)) > 0.8


@pytest.mark.parametrize("kind", ["missing", "a file", "a stream", "full", "removed", "no address"])
def test_a_notify_socket_that_fails_is_logged_once(launch: Launcher, database: str, tmp_path: Path, kind: str) -> None:
    """Whatever is wrong with NOTIFY_SOCKET, the journal says it once and everything else works."""
    path = tmp_path / "notify"
    address = "nonsense" if kind == "no address" else str(path)
    reader = None
    match kind:
        case "a file":
            path.touch()
        case "a stream":
            reader = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            reader.bind(address)
        case "full":
            reader = full_socket(path)
        case "removed":
            reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            reader.bind(address)
        case _:  # nothing is there
            assert kind in {"missing", "no address"}
    try:
        # The watchdog makes it look at the socket often.
        daemon = launch.ready(config(database), environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"})
        if kind == "removed":
            assert reader is not None
            reader.close()
            path.unlink()
        daemon.wait_for("notify.failed")
        for _ in range(2):
            assert request(daemon, "reload")["ok"]
        assert daemon.stop() == 0
        assert len(daemon.said("notify.failed")) == 1
    finally:
        if reader is not None:
            reader.close()


def test_ready_is_not_lost_to_a_full_socket(launch: Launcher, database: str, tmp_path: Path) -> None:
    """READY that met a full socket arrives as soon as the socket is read."""
    reader = full_socket(tmp_path / "notify")
    with reader:
        # The watchdog makes it try again often.
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        launch.ready(config(database), environ=environ)
        reader.settimeout(30)
        read = iter(lambda: reader.recv(65536), b"")
        assert any(message.startswith(b"READY=1") for message in read)


def test_a_watchdog_of_another_process_is_not_fed(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """WATCHDOG_PID that names another process was inherited by accident: no WATCHDOG is sent."""
    environ = systemd.environ | {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid())}
    daemon = launch.ready(config(database), environ=environ)
    systemd.wait_for("READY")
    assert daemon.stop() == 0
    systemd.wait_for("STOPPING")
    assert not systemd.all_of("WATCHDOG")


_CHILD = """
    import asyncio, subprocess, sys
    SHOW = "env | grep -E '^(NOTIFY|WATCHDOG|LISTEN)' >&2; grep SigBlk /proc/self/status >&2"
    async def work(ctx):
        child = await asyncio.create_subprocess_shell(SHOW, stderr=subprocess.PIPE)
        ctx.log.info("asyncio", shown=(await child.communicate())[1].decode())
        run = lambda: subprocess.run(SHOW, shell=True, stderr=subprocess.PIPE).stderr.decode()
        ctx.log.info("thread", shown=await asyncio.to_thread(run))
        ctx.log.info("import", shown=AT_IMPORT)
        await ctx.sleep(3600)
    AT_IMPORT = subprocess.run(SHOW, shell=True, stderr=subprocess.PIPE).stderr.decode()
"""


def test_children_see_nothing_of_it(launch: Launcher, database: str, systemd: NotifySocket) -> None:
    """A child that a worker starts, wherever, sees no notify socket, no watchdog and no blocked signal."""
    environ = systemd.environ | {"WATCHDOG_USEC": "1000000", "LISTEN_FDS": "1"}
    daemon = launch.prepare(config(database), _CHILD, environ=environ)
    daemon.start("/usr/bin/env", "--block-signal=HUP", *_python())
    for where in ("asyncio", "thread", "import"):
        assert daemon.wait_for(where)["shown"].split() == ["SigBlk:", "0" * 16], where


def _python() -> tuple[str, ...]:
    import sys

    return (sys.executable, "-m", "supervisor")


def test_the_embedded_server_sees_nothing_of_it(launch: Launcher, systemd: NotifySocket, tmp_path: Path) -> None:
    """PostgreSQL, which speaks sd_notify itself, gets no notify socket, no watchdog and no blocked signal."""
    text = f'[supervisor]\n[database]\ndsn = "ephemeral:"\n{ONE_WORKER}'
    environ = systemd.environ | {"WATCHDOG_USEC": "10000000"}
    daemon = launch.prepare(text, IDLE, environ=environ).start("/usr/bin/env", "--block-signal=HUP", *_python())
    daemon.wait_for("daemon.ready", limit_s=60)
    servers = _children(daemon)
    assert servers
    for pid in servers:
        with open(f"/proc/{pid}/environ", "rb") as shown:  # noqa: PTH123 - of a process
            names = {entry.partition(b"=")[0] for entry in shown.read().split(b"\0")}
        assert not names & {b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID"}
    assert daemon.stop(limit_s=60) == 0
    assert systemd.essence() == ["READY", "STOPPING"]
    assert tmp_path.exists()


def _children(daemon: Daemon) -> list[int]:
    with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children") as children:  # noqa: PTH123 - of a process
        return [int(pid) for pid in children.read().split()]
