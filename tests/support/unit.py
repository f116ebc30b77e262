"""An instance of the shipped template unit in a container: installed, run through systemctl, and always ended."""

from __future__ import annotations

import itertools
import json
import textwrap
from typing import TYPE_CHECKING, Any, Self

from support.container_python import CHECKOUT
from support.systemd_container import DEADLINE_S

if TYPE_CHECKING:
    import subprocess

    from support.systemd_container import SystemdContainer

UNITS = CHECKOUT / "systemd"
COMMAND = "/opt/pgsupervisor/bin/pgsupervisor"
IDLE = """
    async def work(ctx):
        while not ctx.stopping:
            await ctx.sleep(3600)
"""
_numbers = itertools.count(1)


class Unit:
    """`pgsupervisor@NAME` with one worker, `workers:work`, and a NAME that no other test has; ended by `with`.

    Attributes:
        container: Where it lives.
        unit: The unit's name.
        config: Its configuration's path, in the container.
        folder: Where its workers are imported from, in the container.
    """

    def __init__(
        self, container: SystemdContainer, dsn: str, workers: str = IDLE, *, config: str = "", drop_in: str = ""
    ) -> None:
        """Install the unit; it is not started yet.

        Args:
            container: Where.
            dsn: The database's, given as a credential unless it names a store of the daemon's own.
            workers: The text of the module `workers`.
            config: More lines of the configuration, beginning with keys of `[database]`.
            drop_in: Lines of `[Service]` that differ from the shipped unit.
        """
        self.container = container
        self.name = f"t{next(_numbers)}"
        self.unit = f"pgsupervisor@{self.name}.service"
        self.config = f"/etc/pgsupervisor/{self.name}.toml"
        self.folder = f"/etc/pgsupervisor/{self.name}"
        self._dsn = dsn
        if "://" in dsn:
            container.write(f"/etc/credstore/pgsupervisor.{self.name}.dsn", dsn, mode=0o600)
        self.write(config, workers)
        system = "/etc/systemd/system"
        if int(container.run("systemctl", "--version").stdout.split()[1]) >= 253:
            shipped = UNITS / "pgsupervisor@.service.d" / "notify-reload.conf"
            container.write(f"{system}/pgsupervisor@.service.d/notify-reload.conf", shipped.read_text())
        if drop_in:
            container.write(f"{system}/{self.unit}.d/test.conf", f"[Service]\n{textwrap.dedent(drop_in)}\n")
        container.install("pgsupervisor@.service", (UNITS / "pgsupervisor@.service").read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            print(self.container.tail())  # noqa: T201 - pytest shows it beside a failure
        self.container.run("sh", "-c", 'systemctl kill -s KILL "$0"; systemctl stop "$0"', self.unit, check=False)

    def write(self, config: str | None = None, workers: str | None = None) -> None:
        """Write the configuration, the workers' module, or both."""
        if config is not None:
            dsn = "" if "://" in self._dsn else f'dsn = "{self._dsn}"\n'
            head = (
                f'[workers.main]\nrun = "workers:work"\n[supervisor]\npython_path = ["{self.name}"]\n[database]\n{dsn}'
            )
            self.container.write(self.config, head + textwrap.dedent(config))
        if workers is not None:
            self.container.write(f"{self.folder}/workers.py", textwrap.dedent(workers))

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Give an order for this unit: `systemctl WORDS UNIT`."""
        return self.container.run("systemctl", *words, self.unit, check=check)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.systemctl("start")

    def kill(self, signal: str) -> None:
        """Send a signal to the daemon alone."""
        self.systemctl("kill", "-s", signal, "--kill-whom=main")

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.container.show(self.unit, name)

    @property
    def pid(self) -> int:
        """The daemon's process id, in the container."""
        return int(self.show("MainPID"))

    def children(self) -> list[int]:
        """Return the daemon's child processes, in the container: the postmaster of an embedded store."""
        pid = self.pid
        return [int(child) for child in self.container.path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `pgsupervisor WORDS -c CONFIG` as an administrator does."""
        return self.container.run(COMMAND, *words, "-c", self.config, check=check)

    def status(self) -> dict[str, Any]:
        """Return `status --json`."""
        status: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return status

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the unit's entries that fit, oldest first."""
        return self.container.journal("-u", self.unit, *matches)

    def events(self) -> list[str]:
        """Return the names of the events that the daemon itself told, oldest first."""
        return [entry["EVENT"] for entry in self.journal(f"_SYSTEMD_UNIT={self.unit}") if "EVENT" in entry]

    def wait_for(self, *matches: str, count: int = 1, limit_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until `count` entries of the unit fit, and return the last of those."""
        return self.container.wait_for("-u", self.unit, *matches, count=count, limit_s=limit_s)
