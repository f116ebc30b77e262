"""An embedded store, run in the test's own process or by a process that does with it what the daemon does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.clock import SystemClock
from supervisor.config.model import EmbeddedStore
from supervisor.database.embedded.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REPOSITORY = Path(__file__).parents[2]

# A process that does with the store what the daemon does; it ends with its standard input.
_DAEMON = """
import asyncio, os, signal, sys
from pathlib import Path
import uvloop
from supervisor.clock import SystemClock
from supervisor.config.model import EmbeddedStore
from supervisor.database.embedded.server import EmbeddedServer
from supervisor.database.embedded.locks import StateLock

async def main():
    lock = StateLock(Path(sys.argv[1]))
    await lock.acquire(clock=SystemClock())
    spec = EmbeddedStore(ephemeral=sys.argv[3] == "ephemeral")
    server = EmbeddedServer(spec, Path(sys.argv[1]), clock=SystemClock(), limit_s=float(sys.argv[4]))
    await server.start()
    print(server.pid, server.path, server.dsn, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM, signal.SIGINT})
signal.signal(signal.SIGHUP, signal.SIG_IGN)
factory = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[sys.argv[2]]
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


class StoreDaemon:
    """A process that runs an embedded store.

    Attributes:
        process: Itself.
        server_pid: Its PostgreSQL's postmaster.
        path: The store's folder.
        dsn: How the store is reached.
    """

    def __init__(
        self,
        home: Path,
        *,
        loop: str = "asyncio",
        mode: str = "kept",
        limit_s: float = 30.0,
        prefix: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", _DAEMON, home, loop, mode, str(limit_s)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.server_pid = 0
        self.path = home
        self.dsn = ""

    def wait(self) -> None:
        """Return when the server accepts connections."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.complaint()
        pid, path, self.dsn = line.split()
        self.server_pid, self.path = int(pid), Path(path)

    def complaint(self) -> str:
        """Return what it complained of, once it has ended by itself."""
        return self.process.communicate(timeout=20)[1]

    def kill(self) -> None:
        """Kill it, and it alone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Have it stop, and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)


@contextlib.asynccontextmanager
async def running(state_dir: Path, spec: EmbeddedStore | None = None, **options: Any) -> AsyncIterator[EmbeddedServer]:
    """Run an embedded server for the length of the block."""
    server = EmbeddedServer(spec or EmbeddedStore(), state_dir, **{"clock": SystemClock(), **options})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: EmbeddedServer, sql: str) -> Any:
    """Connect, ask one question, and disconnect."""
    connection = await asyncpg.connect(server.dsn.secret_value(), timeout=5)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"X", "Z"}
    except OSError:
        return False


def kill_all_below(folder: Path) -> None:
    """Kill the processes that stand in a folder, and wait for their end."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (process / "cwd").readlink().is_relative_to(folder):
                os.kill(int(process.name), signal.SIGKILL)
                wait_for_end(int(process.name))


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    deadline_s = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline_s, f"process {pid} lives on"
        time.sleep(0.01)
