"""Which form and target are chosen, tried with processes that have such a stderr."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SAY = """
import sys
from supervisor.clock import SystemClock
from supervisor import journal
from supervisor.journal import open_journal, log_event
choose = journal.choose_sink
journal.choose_sink = lambda form, environ: choose(form, environ, socket_path=sys.argv[2])
journal = open_journal(level="info", format=sys.argv[1], clock=SystemClock())
try:
    raise ValueError("no\\x1b[2J")
except ValueError as exc:
    log_event("worker.failed", worker="mail", replica=1, odd="x", exc=exc)
journal.close(5)
"""


def run(form: str, stderr: Any, *, socket_path: object = "/nonexistent", **environ: str) -> None:
    """Let a process say one entry with this stderr."""
    subprocess.run(
        [sys.executable, "-c", SAY, form, str(socket_path)],
        stderr=stderr, cwd=ROOT, env={"PATH": os.environ["PATH"], **environ}, check=True,
    )  # fmt: skip


def on_terminal(form: str, **environ: str) -> str:
    """Return what a process shows on a terminal."""
    ours, theirs = pty.openpty()
    run(form, theirs, **environ)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    return shown


def test_json_lines_into_a_file(tmp_path: Path) -> None:
    """A stderr that is neither terminal nor journal gets one JSON object a line, times in UTC."""
    with (tmp_path / "log").open("wb") as log:
        run("auto", log, JOURNAL_STREAM="1:1")
    line = json.loads((tmp_path / "log").read_text())
    assert (line["event"], line["level"], line["worker"]) == ("worker.failed", "error", "mail")
    assert line["ts"].endswith("Z")
    assert "ValueError" in line["traceback"]


def test_colours_on_a_terminal() -> None:
    """A terminal gets colours, the traceback below the entry, and no control characters of others."""
    shown = on_terminal("auto")
    assert "\x1b[31merror" in shown
    assert "\x1b[2J" not in shown
    assert "odd=x" in shown
    assert "\r\n    Traceback" in shown


def test_no_colour_where_none_is_wanted() -> None:
    """NO_COLOR and a dumb terminal are obeyed."""
    assert "\x1b" not in on_terminal("auto", NO_COLOR="1")
    assert "\x1b" not in on_terminal("terminal", TERM="dumb")


def test_the_journal_when_stderr_is_its_stream(tmp_path: Path) -> None:
    """JOURNAL_STREAM that names this very stderr means native entries; nothing goes to stderr."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald, (tmp_path / "log").open("wb") as log:
        journald.bind(str(path))
        journald.settimeout(30)
        stat = os.fstat(log.fileno())
        run("auto", log, socket_path=path, JOURNAL_STREAM=f"{stat.st_dev}:{stat.st_ino}")
        assert b"\nEVENT=worker.failed\n" in journald.recv(65536)
    assert not (tmp_path / "log").read_bytes()


def test_the_journal_without_its_socket(tmp_path: Path) -> None:
    """Where journald does not listen the entries go to stderr as JSON lines."""
    with (tmp_path / "log").open("wb") as log:
        run("journal", log)
    assert json.loads((tmp_path / "log").read_text())["event"] == "worker.failed"


def test_a_closed_stderr() -> None:
    """A process whose stderr is closed works and ends in order."""
    command = ["sh", "-c", 'exec "$0" -c "$1" auto /nonexistent 2>&-', sys.executable, SAY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
