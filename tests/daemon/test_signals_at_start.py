"""Signals before the daemon is ready: none is lost, none ends it that should not."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.launching import IDLE, ONE_WORKER, config, count, request
from support.pace import process_slack_s
from support.proxy import Proxy

from supervisor.database.embedded.locks import StateLock

if TYPE_CHECKING:
    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

# The unit's ExecStart.
UNIT = ("/usr/bin/env", "--block-signal=HUP", sys.executable, "-m", "supervisor")
_HUP = 1 << (signal.SIGHUP - 1)
_TERM = 1 << (signal.SIGTERM - 1)


def _start_like_the_unit(launch: Launcher, text: str, folder: str) -> Daemon:
    """Start a daemon and return once `env` has blocked SIGHUP: systemd's own window before that is none of ours."""
    daemon = launch.prepare(text, folder=folder).start(*UNIT)
    deadline = time.monotonic() + 20
    while not _blocks_hup(daemon.pid):
        assert time.monotonic() < deadline
    return daemon


def _blocks_hup(pid: int) -> bool:
    # Blocked by env, or handled by the daemon already.
    return bool((_mask(pid, "SigBlk") | _mask(pid, "SigCgt")) & _HUP)


def _mask(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)), 16)


@pytest.mark.parametrize("moment_ms", range(0, 240, 20))
def test_a_sighup_during_the_start_is_done_once_after_it(launch: Launcher, database: str, moment_ms: int) -> None:
    """A SIGHUP at any moment from exec on neither kills the daemon nor is lost: one reload follows READY."""
    daemon = _start_like_the_unit(launch, config(database), "app")
    time.sleep(moment_ms / 1000)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reload.applied")
    assert daemon.stop() == 0
    events = [entry["event"] for entry in daemon.entries]
    assert events.index("daemon.ready") < events.index("reload.started")
    assert count(daemon, "reload.started") == 1


@pytest.mark.parametrize("attempt", range(4))
def test_a_storm_of_sighups_during_the_start_is_survived(launch: Launcher, database: str, attempt: int) -> None:
    """A SIGHUP every two milliseconds from exec until READY: the daemon lives, is ready and reloads afterwards."""
    daemon = _start_like_the_unit(launch, config(database), f"app{attempt}")
    deadline = time.monotonic() + 20
    while not daemon.said("daemon.ready"):
        assert daemon.process is not None
        assert daemon.process.poll() is None, daemon.transcript()
        assert time.monotonic() < deadline
        daemon.signal(signal.SIGHUP)
        time.sleep(0.002)
    daemon.wait_for("reload.applied")
    assert daemon.stop() == 0


def test_many_sighups_while_connecting_are_one_reload(launch: Launcher, shared_postgres: Postgres) -> None:
    """However many SIGHUPs come while the daemon connects, one reload follows READY."""
    with Proxy(shared_postgres.port) as proxy:
        proxy.refuse()
        dsn = shared_postgres.dsn(port=proxy.port)
        daemon = launch(config(dsn, database="probe_interval = '100ms'\nstartup = { attempts = 0 }"))
        daemon.wait_for("database.connecting")
        for _ in range(50):
            daemon.signal(signal.SIGHUP)
        request(daemon, "status")  # the signals were heard before this was answered
        assert not daemon.said("reload.started")
        proxy.forward()
        daemon.wait_for("reload.applied")
        assert daemon.stop() == 0
        assert count(daemon, "reload.started") == 1


def test_sigterm_before_the_handlers_are_installed_is_not_lost(launch: Launcher, database: str) -> None:
    """The first statement blocks SIGTERM; one that comes during the imports is a clean stop afterwards."""
    daemon = launch(config(database))
    deadline = time.monotonic() + 20
    while not _mask(daemon.pid, "SigBlk") & _TERM:
        assert not _mask(daemon.pid, "SigCgt") & _TERM, "it was handled before it was ever blocked"
        assert time.monotonic() < deadline
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert daemon.said("daemon.stopped")


_HANGING = """
    import pathlib, time
    pathlib.Path(__file__).with_name("importing").touch()
    time.sleep(3600)
"""


def test_sigterm_ends_a_start_that_hangs_in_an_import(launch: Launcher, tmp_path: Path, database: str) -> None:
    """While a worker's module hangs in its import the signals still work: SIGTERM ends the start with 0."""
    daemon = launch(config(database), _HANGING)
    _wait_for_file(tmp_path / "app" / "importing")
    assert daemon.stop(limit_s=5) == 0
    assert [entry["event"] for entry in daemon.entries] == ["daemon.starting", "daemon.stopping", "daemon.stopped"]


def test_sigint_ends_a_start_that_connects(launch: Launcher) -> None:
    """While there is no server, Ctrl-C ends the start at once and with 0."""
    daemon = launch(config("postgresql://x@127.0.0.1:1/x", database="startup = { attempts = 0 }"))
    daemon.wait_for("database.connecting")
    daemon.signal(signal.SIGINT)
    assert daemon.wait(5) == 0


def test_sigterm_ends_a_start_before_a_black_hole(launch: Launcher) -> None:
    """A server that swallows every packet does not hold up the stop."""
    with Proxy(1) as proxy:
        proxy.black_hole()
        daemon = launch(config(f"postgresql://x@127.0.0.1:{proxy.port}/x"))
        daemon.wait_for("database.connecting")
        assert daemon.stop(limit_s=5) == 0
        assert daemon.said("daemon.stopped")[0]["took_s"] < 1 + process_slack_s()


EMBEDDED = f'[supervisor]\n[database]\ndsn = "embedded:"\n{ONE_WORKER}'


def test_sigterm_ends_a_start_that_waits_for_the_store(launch: Launcher, tmp_path: Path) -> None:
    """While another process holds the embedded store, the wait is told with its holder and SIGTERM ends it."""
    lock = StateLock(tmp_path / "app" / "state")
    lock.directory.mkdir(parents=True)
    assert lock.try_acquire() is None
    try:
        daemon = launch(EMBEDDED)
        told = daemon.wait_for("store.locked")
        assert told["holder_pid"] == os.getpid()
        assert daemon.stop(limit_s=5) == 0
    finally:
        lock.release()


def test_sigterm_while_the_embedded_server_starts(launch: Launcher, tmp_path: Path) -> None:
    """A stop in the middle of the embedded server's start ends it with 0 and leaves no server behind."""
    daemon = launch(EMBEDDED)
    _wait_for_file(tmp_path / "app" / "state" / "postgres")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(40) == 0
    assert not _processes_in(tmp_path)
    again = launch.prepare(EMBEDDED, IDLE).start()
    again.wait_for("daemon.ready", limit_s=60)
    assert again.stop() == 0


def _processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(folder) in command and "postgres" in command:
                    found.append(command)
    return found


def _wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.005)
