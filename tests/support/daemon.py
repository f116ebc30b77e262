"""The daemon as a process: started for real, listened to line by line, signalled, and always ended."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 30.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

Entry = dict[str, Any]


class Daemon:
    """`pgsupervisor run` in a folder of its own, with its journal as JSON lines.

    Args:
        folder: Where the configuration, the workers and the state go.
        config: The configuration; `dsn` and `control` are up to the test, `state_dir` is `folder/state`.
        workers: The text of the module `workers`, importable by the configuration.
    """

    def __init__(self, folder: Path, config: str, workers: str = "", name: str = "app") -> None:
        self.folder = folder
        self.config = folder / f"{name}.toml"
        self.entries: list[Entry] = []
        self.other_lines: list[str] = []
        self.environ: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._grown = threading.Condition()
        self._reader: threading.Thread | None = None
        self._is_open = False
        self.write(config, workers)

    def write(self, config: str | None = None, workers: str | None = None) -> None:
        """Write the configuration, the workers' module, or both."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if config is not None:
            text = textwrap.dedent(config)
            if "[supervisor]" not in text:
                text = "[supervisor]\n" + text if not text.lstrip().startswith("[") else f"[supervisor]\n\n{text}"
            text = text.replace("[supervisor]", '[supervisor]\nstate_dir = "state"\npython_path = ["."]', 1)
            # Replaced as a whole: a daemon that starts at this moment must not read half of it.
            beside = self.config.with_suffix(".new")
            beside.write_text(text)
            beside.replace(self.config)
        if workers is not None:
            (self.folder / "workers.py").write_text(textwrap.dedent(workers))

    def start(self, *command: str) -> Self:
        """Start the process; nothing is waited for."""
        self.process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "supervisor")), "run", "-c", str(self.config)],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - one libc call
        )
        assert self.process.stderr is not None
        self._is_open = True
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        return self

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "NOTIFY", "WATCHDOG"))}
        for name in ("JOURNAL_STREAM", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"):
            kept.pop(name, None)
        return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | self.environ

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode("utf-8", errors="replace").rstrip("\n")
            with self._grown:
                try:
                    self.entries.append(json.loads(text))
                except ValueError:
                    self.other_lines.append(text)
                self._grown.notify_all()
        with self._grown:
            self._is_open = False
            self._grown.notify_all()

    # Waiting for what it says

    def wait_for(self, event: str, *, limit_s: float = LIMIT_S, after: int = 0, **fields: Any) -> Entry:
        """Return the first entry of this event, at index `after` or later, whose fields are these."""
        wanted = {"event": event, **fields}

        def find() -> Entry | None:
            return next((e for e in self.entries[after:] if all(e.get(k) == v for k, v in wanted.items())), None)

        entry: Entry = self.wait_until(find, f"an entry {wanted}", limit_s=limit_s)
        return entry

    def wait_until(self, find: Callable[[], Any], what: str, *, limit_s: float = LIMIT_S) -> Any:
        """Return what `find` finds, looked for at every new entry."""
        deadline = time.monotonic() + limit_s
        with self._grown:
            while not (found := find()):
                left = deadline - time.monotonic()
                if left <= 0 or not self._is_open:
                    raise AssertionError(f"no {what}; the daemon said:\n{self.transcript()}")
                self._grown.wait(left)
            return found

    def said(self, event: str) -> list[Entry]:
        """Return every entry of this event so far."""
        with self._grown:
            return [entry for entry in self.entries if entry.get("event") == event]

    @property
    def mark(self) -> int:
        """How many entries there are: for `wait_for(…, after=mark)`."""
        with self._grown:
            return len(self.entries)

    def transcript(self) -> str:
        """Return everything it said, for a failed test."""
        return "\n".join([*(json.dumps(entry) for entry in self.entries), *self.other_lines])

    # Acting on it

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the end and return the exit status, negative for a signal."""
        assert self.process is not None
        try:
            status = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {limit_s}s; it said:\n{self.transcript()}") from None
        assert self._reader is not None
        self._reader.join(limit_s)
        return status

    def stop(self, limit_s: float = LIMIT_S) -> int:
        """Ask it to stop with SIGTERM and return the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def run_command(self, *arguments: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run `pgsupervisor ARGUMENTS -c CONFIG` and return its outcome."""
        return subprocess.run(
            [sys.executable, "-m", "supervisor", *arguments, "-c", str(self.config)],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """Return `status --json`."""
        done = self.run_command("status", "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        if self._reader is not None:
            self._reader.join(5)
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def running(folder: Path, config: str, workers: str = "", *, environ: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A started daemon, killed at the end if it still runs."""
    daemon = Daemon(folder, config, workers)
    daemon.environ.update(environ or {})
    try:
        yield daemon.start()
    finally:
        daemon.kill()
