"""The daemon in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import sys
import termios
from subprocess import Popen
from typing import TYPE_CHECKING

from support.daemon import LIMIT_S
from support.launching import config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.daemon import Daemon
    from support.launching import Launcher


class Terminal:
    """A terminal with a daemon in it.

    Attributes:
        process: The daemon's process.
        shown: What it has shown so far.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.shown = b""
        self._ours, theirs = pty.openpty()
        self.process: Popen[bytes] = Popen(
            [sys.executable, "-m", "supervisor", "run", "-c", str(daemon.config)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
            cwd=daemon.folder,
        )
        os.close(theirs)

    def wait_for(self, text: bytes) -> None:
        """Read until this has been shown."""
        while text not in self.shown:
            assert select.select([self._ours], [], [], LIMIT_S)[0], self.shown.decode()
            self.shown += os.read(self._ours, 65536)

    def write(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def read_to_end(self) -> str:
        """Return all that is shown until the daemon has left."""
        with contextlib.suppress(OSError):  # the terminal's end
            while more := os.read(self._ours, 65536):
                self.shown += more
        return self.shown.decode()

    def close(self) -> None:
        """Close the window."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


@contextlib.contextmanager
def terminal(daemon: Daemon) -> Iterator[Terminal]:
    """Start a daemon in a terminal, and wait until it is ready."""
    opened = Terminal(daemon)
    try:
        opened.wait_for(b"Ready after")
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        opened.close()


def test_ctrl_c_is_a_clean_stop(launch: Launcher, database: str) -> None:
    """In a terminal the journal is for people, and one Ctrl-C ends the daemon in order, with 0 and no traceback."""
    with terminal(launch.prepare(config(database))) as opened:
        opened.write(b"\x03")
        text = opened.read_to_end()
        assert opened.process.wait(20) == 0
    assert "asked by SIGINT" in text
    assert "Stopped with status 0" in text
    assert "Traceback" not in text
    assert '"event"' not in text


def test_a_closed_terminal_is_a_clean_stop(launch: Launcher, database: str) -> None:
    """When its terminal hangs up the daemon stops in order, with 0, instead of running on where nobody sees it."""
    work = """
        from pathlib import Path
        async def work(ctx):
            while not ctx.stopping:
                await ctx.sleep(3600)
            Path(__file__).with_name("in order").touch()
    """
    daemon = launch.prepare(config(database), work)
    with terminal(daemon) as opened:
        opened.close()
        assert opened.process.wait(20) == 0
    assert (daemon.folder / "in order").exists()


def test_a_sighup_in_an_open_terminal_is_a_reload(launch: Launcher, database: str) -> None:
    """`kill -HUP` means what it means everywhere while the terminal is there."""
    with terminal(launch.prepare(config(database))) as opened:
        opened.process.send_signal(signal.SIGHUP)
        opened.wait_for(b"The new configuration runs")
        assert opened.process.poll() is None
        opened.write(b"\x03")
        text = opened.read_to_end()
        assert opened.process.wait(20) == 0
    assert "asked by SIGINT" in text
