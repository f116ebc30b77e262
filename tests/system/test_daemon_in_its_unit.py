"""The daemon in its hardened unit, under this machine's systemd and under one that knows notify-reload."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.box_python import CHECKOUT

if TYPE_CHECKING:
    from support.box import Box
    from support.postgres import Postgres

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


def _install(box: Box, *, dsn: str, embedded: bool = False) -> None:
    """Install the shipped unit with one worker; a server's dsn comes as a credential."""
    units = CHECKOUT / "systemd"
    box.write("/etc/pgsupervisor/beats.py", _WORKER)
    if not embedded:
        box.write("/etc/credstore/pgsupervisor.pgsupervisor.dsn", dsn, mode=0o600)
    _configure(box, f'[database]\ndsn = "{dsn}"\n' if embedded else "")
    if int(box.run("systemctl", "--version").stdout.split()[1]) >= 253:
        drop_in = units / "pgsupervisor.service.d" / "notify-reload.conf"
        box.write(f"/etc/systemd/system/{UNIT}.service.d/notify-reload.conf", drop_in.read_text())
    box.install(f"{UNIT}.service", (units / f"{UNIT}.service").read_text())


def _configure(box: Box, more: str) -> None:
    worker = '[supervisor]\npython_path = ["."]\n[workers.beat]\nkind = "service"\nrun = "beats:beat"\n'
    box.write(CONFIG, worker + more)


def _lives(box: Box) -> None:
    """Start, look from an administrator's shell, reload well and badly, and stop."""
    box.run("systemctl", "start", UNIT)
    box.wait_for("-u", UNIT, "WORKER=beat", "MESSAGE=a beat was written")
    status = json.loads(box.run(COMMAND, "status", "--json", "-c", CONFIG).stdout)
    assert "beat" in json.dumps(status)
    text = box.path(CONFIG).read_text()
    box.write(CONFIG, text + '[log]\nlevel = "debug"\n')
    box.run("systemctl", "reload", UNIT)
    box.wait_for("-u", UNIT, "EVENT=reload.applied")
    box.write(CONFIG, "broken")
    assert box.run("systemctl", "reload", UNIT, check=False).returncode != 0
    box.wait_for("-u", UNIT, "EVENT=reload.rejected")
    assert box.show(UNIT, "ActiveState") == "active"
    assert box.show(UNIT, "NRestarts") == "0"
    box.run("systemctl", "stop", UNIT)
    assert box.show(UNIT, "Result") == "success"
    assert box.show(UNIT, "ExecMainStatus") == "0"


def test_works_hardened_on_its_embedded_store(box: Box) -> None:
    """The daemon with a PostgreSQL of its own does everything in the shipped unit."""
    _install(box, dsn="embedded:", embedded=True)
    _lives(box)


def test_works_hardened_on_a_server(box: Box, postgres: Postgres) -> None:
    """The daemon reaches a server over TCP, with the dsn from a credential that only root can read."""
    _install(box, dsn=postgres.dsn())
    _lives(box)
    assert int(postgres.execute("select count(*) from beat")) >= 1


def test_check_finds_the_credential_of_the_unit(box: Box) -> None:
    """In root's shell `check` reads the unit's credential; another user hears that there is no dsn."""
    _install(box, dsn="postgresql://app:hidden@127.0.0.1:1/app")
    done = box.run(COMMAND, "check", "-c", CONFIG)
    assert "is right: 1 worker" in done.stdout
    done = box.run(COMMAND, "check", "--connect", "-c", CONFIG, check=False)
    assert done.returncode == 78
    assert "127.0.0.1:1 refuses connections" in done.stderr
    assert "hidden" not in done.stderr
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = box.run(*nobody, COMMAND, "check", "-c", CONFIG, check=False)
    assert done.returncode == 78
    assert "there is no dsn" in done.stderr


@pytest.mark.parametrize("embedded", [True, False])
def test_works_under_notify_reload(trixie_box: Box, postgres: Postgres, *, embedded: bool) -> None:
    """The same with Debian 13 and the drop-in: one reload for the client and the SIGHUP, and a refused one fails."""
    _install(trixie_box, dsn="embedded:" if embedded else postgres.dsn(), embedded=embedded)
    _lives(trixie_box)
    assert len(trixie_box.journal("-u", UNIT, "EVENT=reload.applied")) == 1
