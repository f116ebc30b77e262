"""Daemons for a test: written, started, asked through their control socket, and always ended."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from support.daemon import Daemon

from supervisor.cli.control_client import send_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Until it is stopped; it does nothing meanwhile.
IDLE = """
    async def work(ctx):
        while not ctx.stopping:
            await ctx.sleep(3600)
"""
ONE_WORKER = '[workers.main]\nrun = "workers:work"\n'


def config(dsn: str, *, supervisor: str = "", database: str = "", workers: str = ONE_WORKER, more: str = "") -> str:
    """Return a configuration; each argument adds lines to its section."""
    return f'[supervisor]\n{supervisor}\n[database]\ndsn = "{dsn}"\n{database}\n{more}\n{workers}'


class Launcher:
    """Starts daemons in folders of their own below one, and ends them with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[Daemon] = []

    def prepare(
        self, text: str, workers: str = IDLE, *, folder: str = "app", environ: dict[str, str] | None = None
    ) -> Daemon:
        """Write a daemon's files; it is not started yet."""
        daemon = Daemon(self._folder / folder, text, workers)
        daemon.environ.update(environ or {})
        self._daemons.append(daemon)
        return daemon

    def __call__(
        self, text: str, workers: str = IDLE, *, folder: str = "app", environ: dict[str, str] | None = None
    ) -> Daemon:
        """Start a daemon; nothing is waited for."""
        return self.prepare(text, workers, folder=folder, environ=environ).start()

    def ready(
        self, text: str, workers: str = IDLE, *, folder: str = "app", environ: dict[str, str] | None = None
    ) -> Daemon:
        """Start a daemon and wait until it is ready."""
        daemon = self(text, workers, folder=folder, environ=environ)
        daemon.wait_for("daemon.ready")
        return daemon

    def end(self) -> None:
        """Kill what still runs."""
        for daemon in self._daemons:
            daemon.kill()


@contextlib.contextmanager
def launching(folder: Path) -> Iterator[Launcher]:
    """Start daemons, all of which are ended at the end."""
    launcher = Launcher(folder)
    try:
        yield launcher
    finally:
        launcher.end()


def request(daemon: Daemon, command: str, *, limit_s: float = 20.0, **fields: Any) -> dict[str, Any]:
    """Ask a daemon through its control socket, the way the commands do it, without the cost of a process."""
    control = daemon.folder / "state" / "control.sock"
    return send_request(str(control), None, {"command": command, **fields}, limit_s=limit_s)


def status(daemon: Daemon) -> dict[str, Any]:
    """Return the daemon's status."""
    answer: dict[str, Any] = request(daemon, "status")["status"]
    return answer


def worker_row(daemon: Daemon, name: str = "main") -> dict[str, Any]:
    """Return the row of one worker in the status."""
    rows: list[dict[str, Any]] = status(daemon)["workers"]
    return next(row for row in rows if row["name"] == name)


def count(daemon: Daemon, event: str) -> int:
    """Return how often something was told, those of its equals that were folded included; ask when it has ended."""
    folded = (int(entry["count"]) for entry in daemon.said("log.repeated") if entry["of_event"] == event)
    return len(daemon.said(event)) + sum(folded)
