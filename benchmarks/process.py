"""A measured process: started, and looked at from outside."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.installation import environment

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 60.0
_MIB = 1024.0


class Process:
    """A process with a notify socket and its standard error in a file.

    Args:
        folder: Its own folder; `stderr` lies there.
        command: What is executed.

    Attributes:
        spawned_s: When it was about to be made, CLOCK_MONOTONIC.
    """

    def __init__(self, folder: Path, *command: str | Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.command = command
        self.stderr = folder / "stderr"
        self._address = folder / "notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self._address))
        self._process: subprocess.Popen[bytes] | None = None
        self.spawned_s = 0.0

    def start(self) -> Self:
        """Start it; nothing is waited for but its exec."""
        nothing = subprocess.DEVNULL
        with self.stderr.open("ab") as stderr:
            around = environment(NOTIFY_SOCKET=str(self._address))
            self.spawned_s = time.monotonic()
            self._process = subprocess.Popen(
                self.command, stdin=nothing, stdout=nothing, stderr=stderr, env=around, cwd=self.folder
            )
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._notify.close()
        self._address.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_notified(self, message: str = "READY=1", limit_s: float = LIMIT_S) -> float:
        """Return when a datagram with this line arrived; earlier ones without it are passed over."""
        deadline_s = time.monotonic() + limit_s
        while True:
            # In pieces: a process that has died will not say anything any more.
            self._notify.settimeout(0.5)
            try:
                data = self._notify.recv(8192)
            except TimeoutError:
                if time.monotonic() > deadline_s or not self.is_running:
                    raise AssertionError(f"no {message} within {limit_s} s; it said:\n{self.said()}") from None
                continue
            now_s = time.monotonic()
            if message.encode() in data.splitlines():
                return now_s

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def stop(self) -> float:
        """Send SIGTERM and return how long the process took to be gone."""
        # Popen.wait() with a limit looks only now and then, up to 50 ms apart.
        handle = os.pidfd_open(self.pid)
        try:
            began_s = time.monotonic()
            self.signal(signal.SIGTERM)
            ended, _, _ = select.select([handle], [], [], LIMIT_S)
            took_s = time.monotonic() - began_s
        finally:
            os.close(handle)
        assert ended, f"SIGTERM did not end it; it said:\n{self.said()}"
        self.wait(LIMIT_S)
        return took_s

    def wait(self, limit_s: float) -> int | None:
        """Return its exit status, negative for a signal; None when it lives on."""
        assert self._process is not None
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None

    def cpu_s(self) -> float:
        """Return the processor time of all its threads, user and system, to the nanosecond."""
        # The kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED); /proc/PID/stat counts the same in steps of 10 ms.
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory_mib(self) -> dict[str, float]:
        """Return resident, proportional and unshared memory."""
        fields: dict[str, float] = {}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]:
            key, _, rest = line.partition(":")
            fields[key] = float(rest.split()[0]) / _MIB
        unshared = fields["Private_Clean"] + fields["Private_Dirty"]
        return {key: round(n, 1) for key, n in (("rss", fields["Rss"]), ("pss", fields["Pss"]), ("uss", unshared))}

    def said(self) -> str:
        """Return what it wrote to standard error so far."""
        return self.stderr.read_text(errors="replace")


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> float:
    """Return when the condition was first seen to hold, looked at every 2 ms."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {limit_s} s: {what}")
        time.sleep(0.002)
    return time.monotonic()


def read_moment(path: Path, what: str, limit_s: float = LIMIT_S) -> float:
    """Return the moment that a worker wrote into a file."""
    wait_until(path.exists, what, limit_s)
    return float(path.read_text())
