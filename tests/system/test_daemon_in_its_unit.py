"""The daemon in its hardened unit, under this machine's systemd and under one that knows notify-reload."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.container_python import CHECKOUT

if TYPE_CHECKING:
    from support.postgres import Postgres
    from support.systemd_container import SystemdContainer

UNIT = "pgsupervisor"
CONFIG = "/etc/pgsupervisor/pgsupervisor.toml"
COMMAND = "/opt/pgsupervisor/bin/pgsupervisor"
_WORKER = """
async def beat(ctx):
    while not ctx.stopping:
        await ctx.db.execute("create table if not exists beat (at timestamptz)")
        await ctx.db.execute("insert into beat values (now())")
        ctx.log.info("a beat was written")
        await ctx.sleep(3600)
"""


def _install(container: SystemdContainer, *, dsn: str, embedded: bool = False) -> None:
    """Install the shipped unit with one worker; a server's dsn comes as a credential."""
    units = CHECKOUT / "systemd"
    container.write("/etc/pgsupervisor/beats.py", _WORKER)
    if not embedded:
        container.write("/etc/credstore/pgsupervisor.pgsupervisor.dsn", dsn, mode=0o600)
    _configure(container, f'[database]\ndsn = "{dsn}"\n' if embedded else "")
    if int(container.run("systemctl", "--version").stdout.split()[1]) >= 253:
        drop_in = units / "pgsupervisor.service.d" / "notify-reload.conf"
        container.write(f"/etc/systemd/system/{UNIT}.service.d/notify-reload.conf", drop_in.read_text())
    container.install(f"{UNIT}.service", (units / f"{UNIT}.service").read_text())


def _configure(container: SystemdContainer, more: str) -> None:
    worker = '[supervisor]\npython_path = ["."]\n[workers.beat]\nkind = "service"\nrun = "beats:beat"\n'
    container.write(CONFIG, worker + more)


def _lives(container: SystemdContainer) -> None:
    """Start, look from an administrator's shell, reload well and badly, and stop."""
    container.run("systemctl", "start", UNIT)
    container.wait_for("-u", UNIT, "WORKER=beat", "MESSAGE=a beat was written")
    status = json.loads(container.run(COMMAND, "status", "--json", "-c", CONFIG).stdout)
    assert "beat" in json.dumps(status)
    text = container.path(CONFIG).read_text()
    container.write(CONFIG, text + '[log]\nlevel = "debug"\n')
    container.run("systemctl", "reload", UNIT)
    container.wait_for("-u", UNIT, "EVENT=reload.applied")
    container.write(CONFIG, "broken")
    assert container.run("systemctl", "reload", UNIT, check=False).returncode != 0
    container.wait_for("-u", UNIT, "EVENT=reload.rejected")
    assert container.show(UNIT, "ActiveState") == "active"
    assert container.show(UNIT, "NRestarts") == "0"
    container.run("systemctl", "stop", UNIT)
    assert container.show(UNIT, "Result") == "success"
    assert container.show(UNIT, "ExecMainStatus") == "0"


def test_works_hardened_on_its_embedded_store(container: SystemdContainer) -> None:
    """The daemon with a PostgreSQL of its own does everything in the shipped unit."""
    _install(container, dsn="embedded:", embedded=True)
    _lives(container)


def test_works_hardened_on_a_server(container: SystemdContainer, postgres: Postgres) -> None:
    """The daemon reaches a server over TCP, with the dsn from a credential that only root can read."""
    _install(container, dsn=postgres.dsn())
    _lives(container)
    assert int(postgres.execute("select count(*) from beat")) >= 1


def test_check_finds_the_credential_of_the_unit(container: SystemdContainer) -> None:
    """In root's shell `check` reads the unit's credential; another user hears that there is no dsn."""
    _install(container, dsn="postgresql://app:hidden@127.0.0.1:1/app")
    done = container.run(COMMAND, "check", "-c", CONFIG)
    assert "is right: 1 worker" in done.stdout
    done = container.run(COMMAND, "check", "--connect", "-c", CONFIG, check=False)
    assert done.returncode == 78
    assert "127.0.0.1:1 refuses connections" in done.stderr
    assert "hidden" not in done.stderr
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = container.run(*nobody, COMMAND, "check", "-c", CONFIG, check=False)
    assert done.returncode == 78
    assert "there is no dsn" in done.stderr


@pytest.mark.parametrize("embedded", [True, False])
def test_works_under_notify_reload(trixie_container: SystemdContainer, postgres: Postgres, *, embedded: bool) -> None:
    """The same with Debian 13 and the drop-in: one reload for the client and the SIGHUP, and a refused one fails."""
    _install(trixie_container, dsn="embedded:" if embedded else postgres.dsn(), embedded=embedded)
    _lives(trixie_container)
    assert len(trixie_container.journal("-u", UNIT, "EVENT=reload.applied")) == 1
