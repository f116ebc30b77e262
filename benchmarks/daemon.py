"""A measured daemon: its configuration, its journal, and questions to its control socket."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from benchmarks.process import Process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.installation import Installation

# As in the unit: the signal waits from before exec.
BLOCKED_HUP = ("/usr/bin/env", "--block-signal=HUP")


class Daemon(Process):
    """`pgsupervisor run` as a process.

    Args:
        folder: Its own folder.
        installation: Which pgsupervisor.
        dsn: The database.
        workers: The `[workers.*]` tables.
        prefix: What stands before the command, such as `BLOCKED_HUP`.
    """

    def __init__(
        self, folder: Path, installation: Installation, dsn: str, workers: str, prefix: tuple[str, ...] = ()
    ) -> None:
        folder.mkdir(parents=True)
        config = folder / "app.toml"
        config.write_text(
            f"[supervisor]\nstate_dir = 'state'\npython_path = ['{installation.modules}']\n"
            f"[database]\ndsn = '{dsn}'\n{workers}"
        )
        super().__init__(folder, *prefix, installation.command, "run", "-c", config)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the journal's entries so far."""
        for line in self.said().splitlines():
            yield json.loads(line)

    def lines(self) -> int:
        """Return how many lines the journal has."""
        return self.stderr.read_bytes().count(b"\n")

    def wait_said(self, event: str, *, after: int = 0, limit_s: float = 60.0) -> float:
        """Return when an entry of this event stood in the journal, below its first `after` lines."""
        needle = f'"event": "{event}"'.encode()

        def stands() -> bool:
            return any(needle in line for line in self.stderr.read_bytes().splitlines()[after:])

        return wait_until(stands, f"an entry {event}", limit_s)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` shows."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10.0)
            peer.connect(str(self.folder / "state" / "control.sock"))
            peer.sendall(b'{"command": "status"}\n')
            with peer.makefile("rb") as reply:
                answer: dict[str, Any] = json.loads(reply.readline())
        status: dict[str, Any] = answer["status"]
        return status


def worker(
    name: str, function: str, *, replicas: int = 1, settings: Mapping[str, Any] | None = None, **keys: str | int
) -> str:
    """Return the table of a worker, a service unless `keys` say something else."""
    if replicas != 1:
        keys["replicas"] = replicas
    inner = ", ".join(f"{key} = {json.dumps(value)}" for key, value in (settings or {}).items())
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return f"[workers.{name}]\nrun = 'bench_workers:{function}'\n{lines}settings = {{ {inner} }}\n"
