from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.systemd_container import DEADLINE_S, SystemdContainer

if TYPE_CHECKING:
    from collections.abc import Callable

_HELLO = """
[Service]
Type=oneshot
DynamicUser=yes
ExecStart=/bin/sh -c 'echo "hello é…"'
"""
_DAEMON_IMPORTS = "import asyncpg, uvloop, structlog, supervisor; print(supervisor.__file__)"


def _says_hello(container: SystemdContainer) -> None:
    container.install("hello.service", _HELLO)
    container.run("systemctl", "start", "hello")
    entry = container.wait_for("_SYSTEMD_UNIT=hello.service", "SYSLOG_IDENTIFIER=sh")
    assert entry["MESSAGE"] == "hello é…"
    assert container.journal("_SYSTEMD_UNIT=hello.service") == [entry]
    assert container.show("hello", "Result") == "success"


def test_runs_a_unit_and_reads_its_journal(container: SystemdContainer) -> None:
    """A container has a systemd that starts units under users of their own, and a journald that keeps what they say."""
    _says_hello(container)


def test_runs_a_newer_systemd(trixie_container: SystemdContainer) -> None:
    """The container of Debian 13 is the same with a systemd that knows notify-reload."""
    _says_hello(trixie_container)
    version = trixie_container.run("systemctl", "--version").stdout.split()[1]
    assert int(version) >= 253


def test_has_the_daemons_python_where_a_hardened_unit_reaches_it(container: SystemdContainer) -> None:
    """Under DynamicUser and ProtectHome the daemon's dependencies and the checkout's code can be imported."""
    command = ("/opt/pgsupervisor/bin/python3", "-c", _DAEMON_IMPORTS)
    options = ("-p", "DynamicUser=yes", "-p", "ProtectHome=yes", "-p", "PrivateTmp=yes")
    done = container.run("systemd-run", "--quiet", "--pipe", "--wait", *options, *command)
    assert done.stdout.strip() == "/opt/pgsupervisor-src/supervisor/__init__.py"


def test_writes_are_lost(container: SystemdContainer) -> None:
    """What a container writes to the machine's folders is never seen by the machine."""
    container.write("/etc/pgsupervisor/container-was-here.toml", "text")
    assert container.run("cat", "/etc/pgsupervisor/container-was-here.toml").stdout == "text"
    assert not Path("/etc/pgsupervisor/container-was-here.toml").exists()


def test_shared_memory_is_its_own(container: SystemdContainer) -> None:
    """A container neither sees the shared memory of the machine, nor does the machine see that of a container."""
    with tempfile.NamedTemporaryFile(prefix="pgsupervisor-outside-", dir="/dev/shm") as outside:
        assert container.run("ls", "-A", "/dev/shm").stdout == ""
        assert Path(outside.name).exists()
        inside = Path(f"{outside.name}-inside")
        container.run("setpriv", "--reuid", "nobody", "--clear-groups", "touch", inside)  # every user may write there
        assert container.run("ls", "-A", "/dev/shm").stdout.split() == [inside.name]
        assert not inside.exists()


def test_two_boxes_do_not_meet(container: SystemdContainer, container_binds: dict[str, Path]) -> None:
    """Containers side by side have units, cgroups and processes of their own."""
    sleeper = "[Service]\nExecStart=/bin/sleep 1000\n"
    container.install("sleeper.service", sleeper)
    container.run("systemctl", "start", "sleeper")
    with SystemdContainer(binds=container_binds) as other:
        other.install("sleeper.service", sleeper)
        other.run("systemctl", "start", "sleeper")
        other.run("systemctl", "stop", "sleeper")
    assert container.show("sleeper", "ActiveState") == "active"


def test_waits_for_what_is_still_to_come(container: SystemdContainer) -> None:
    """A wait ends when the entry is written, also when it began long before that."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(container.wait_for, "SYSLOG_IDENTIFIER=later", count=2)
        for number in range(2):
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            container.run("logger", "-t", "later", f"entry {number}")
        assert waiting.result(DEADLINE_S)["MESSAGE"] == "entry 1"


def test_waiting_for_what_never_comes_fails_with_the_journal(container: SystemdContainer) -> None:
    """A wait has a deadline and shows what was said instead."""
    container.run("logger", "something else")
    with pytest.raises(AssertionError, match="something else"):
        container.wait_for("EVENT=never", limit_s=0.5)


_HOLDER = """
import sys, time
sys.path.insert(0, {tests!r})
from support.systemd_container import SystemdContainer
with SystemdContainer() as container:
    print(container.init, flush=True)
    time.sleep(1000)
"""


def test_nothing_is_left_when_the_test_itself_is_killed(container: SystemdContainer) -> None:  # noqa: ARG001 - only where containers can be
    """A container ends with the process that booted it, even when that is killed."""
    code = _HOLDER.format(tests=str(Path(__file__).parents[1]))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        init = int(holder.stdout.readline())
        os.kill(holder.pid, signal.SIGKILL)
    _wait_until(lambda: not _is_alive(init))
    with SystemdContainer():  # the next one sweeps up
        pass
    assert not list(Path(tempfile.gettempdir()).glob(f"pgsupervisor-container-{holder.pid}-*"))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
