"""The daemon in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import sys
import termios
from subprocess import Popen
from typing import TYPE_CHECKING

from support.launching import config

if TYPE_CHECKING:
    from support.launching import Launcher


def test_ctrl_c_is_a_clean_stop(launch: Launcher, database: str) -> None:
    """In a terminal the journal is for people, and one Ctrl-C ends the daemon in order, with 0 and no traceback."""
    daemon = launch.prepare(config(database))
    ours, theirs = pty.openpty()
    process = Popen(
        [sys.executable, "-m", "supervisor", "run", "-c", str(daemon.config)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        cwd=daemon.folder,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"Ready after" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"\x03")
        with contextlib.suppress(OSError):  # the terminal's end
            while more := os.read(ours, 65536):
                shown += more
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = shown.decode()
    assert "asked by SIGINT" in text
    assert "Stopped with status 0" in text
    assert "Traceback" not in text
    assert '"event"' not in text
