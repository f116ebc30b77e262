from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.container_python import CHECKOUT, SOURCE
from support.systemd_container import SystemdContainer

from supervisor.systemd.unit import Installation, render_unit
from supervisor.systemd.unit_access import this_python

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = CHECKOUT / "systemd"
EXPOSURE_LIMIT = 1.5
# Stands in for the daemon where only the unit is in question: what it can reach, and what is kept from it.
_PROBE = """
import os, sys
sys.path.append({source!r})
import asyncpg, structlog, supervisor, uvloop
from pathlib import Path
from supervisor.systemd.notify import Notifier
notifier = Notifier.from_environment()
config = Path(sys.argv[-1]).read_text()
credentials = Path(os.environ["CREDENTIALS_DIRECTORY"], "dsn")
dsn = credentials.read_text() if credentials.exists() else "none"
homes = sorted(os.listdir("/root")) if os.access("/root", os.R_OK) else []
notifier.ready(" ".join([config, dsn, *homes]))
import time
time.sleep(1000)
"""


def _probing(unit: str) -> str:
    """Return a shipped unit that starts the probe instead of the daemon."""
    command = "/opt/pgsupervisor/bin/pgsupervisor"
    shipped = (UNITS / unit).read_text()
    assert command in shipped
    return shipped.replace(command, "/opt/pgsupervisor/bin/python3 /opt/probe.py")


def _install_shipped(container: SystemdContainer) -> None:
    for unit in UNITS.rglob("pgsupervisor*"):
        if unit.is_file() and unit.suffix == ".service":
            container.install(unit.name, unit.read_text())


def _assert_valid(container: SystemdContainer) -> None:
    _install_shipped(container)
    for unit in ("pgsupervisor.service", "pgsupervisor@one.service"):
        verified = container.run("systemd-analyze", "verify", "--man=no", unit)
        assert verified.stderr == ""
        report = container.run("systemd-analyze", "security", "--no-pager", unit).stdout
        found = re.search(r"exposure level for \S+: ([0-9.]+)", report)
        assert found is not None
        assert float(found[1]) <= EXPOSURE_LIMIT, report


def test_the_shipped_units_are_valid_and_hardened(container: SystemdContainer) -> None:
    """Systemd has nothing to say against the units and rates their exposure at 1.5 or less."""
    _assert_valid(container)


def test_a_newer_systemd_agrees(trixie_container: SystemdContainer) -> None:
    """The same under a systemd that knows notify-reload, with its drop-in."""
    drop_in = UNITS / "pgsupervisor.service.d" / "notify-reload.conf"
    trixie_container.install("pgsupervisor.service.d/notify-reload.conf", drop_in.read_text())
    trixie_container.install("pgsupervisor@.service.d/notify-reload.conf", drop_in.read_text())
    _assert_valid(trixie_container)
    assert trixie_container.show("pgsupervisor", "Type") == "notify-reload"
    assert "pgsupervisor reload" in trixie_container.show("pgsupervisor", "ExecReload")


@pytest.fixture
def home_container(container_binds: dict[str, Path]) -> Iterator[SystemdContainer]:
    """A container that sees the very Python that runs this test, wherever that lives."""
    pythons = {str(path): path for path in this_python() if not path.is_relative_to("/usr")}
    with SystemdContainer(binds=container_binds | pythons) as container:
        yield container
        print(container.tail())  # noqa: T201 - pytest shows it beside a failure


@pytest.mark.systemd
def test_a_unit_for_a_python_in_a_home_works(home_container: SystemdContainer) -> None:
    """A Python, workers and a configuration below a closed /root are reached, and nothing else there is."""
    home_container.write("/root/app/probe.py", _PROBE.format(source=str(CHECKOUT)))
    home_container.write("/root/app/app.toml", "the configuration")
    home_container.write("/root/secret", "nobody's business")
    home_container.write("/root/app.dsn", "the-dsn", mode=0o600)
    home_container.run("chmod", "0700", "/root")
    command = (sys.executable, "/root/app/probe.py")
    installation = Installation(
        "app", command, Path("/root/app/app.toml"), reads=this_python(), dsn_file=Path("/root/app.dsn")
    )
    home_container.install("pgsupervisor-app.service", render_unit(installation))
    home_container.run("systemctl", "start", "pgsupervisor-app")
    status = home_container.show("pgsupervisor-app", "StatusText")
    words = status.split()
    assert words[:3] == ["the", "configuration", "the-dsn"]
    assert "app" in words[3:]
    assert "secret" not in words
    assert home_container.run("stat", "-c", "%a %U", "/run/pgsupervisor/app/").stdout == "700 pgsupervisor-app\n"


@pytest.mark.systemd
@pytest.mark.parametrize("name", ["a", "a-b_c", "0"])
def test_every_instance_has_a_user_and_a_credential_of_its_own(container: SystemdContainer, name: str) -> None:
    """The template's instances differ in user, folders and the file their connection string comes from."""
    container.write("/opt/probe.py", _PROBE.format(source=SOURCE))
    shipped = (UNITS / "pgsupervisor@.service").read_text()
    container.install(
        "pgsupervisor@.service",
        shipped.replace("/opt/pgsupervisor/bin/pgsupervisor", "/opt/pgsupervisor/bin/python3 /opt/probe.py"),
    )
    container.write(f"/etc/pgsupervisor/{name}.toml", f"config-{name}")
    container.write(f"/etc/credstore/pgsupervisor.{name}.dsn", f"dsn-{name}", mode=0o600)
    container.run("systemctl", "start", f"pgsupervisor@{name}")
    assert container.show(f"pgsupervisor@{name}", "StatusText") == f"config-{name} dsn-{name}"
    folders = [f"/run/pgsupervisor/{name}/", f"/var/lib/pgsupervisor/{name}/"]
    assert container.run("stat", "-c", "%a %U", *folders).stdout == f"700 pgsupervisor-{name}\n" * 2


def test_a_missing_credential_is_no_hindrance(container: SystemdContainer) -> None:
    """Without a file in the credential store the daemon starts, and finds its dsn elsewhere."""
    container.write("/opt/probe.py", _PROBE.format(source=SOURCE))
    container.write("/etc/pgsupervisor/pgsupervisor.toml", "config")
    shipped = (UNITS / "pgsupervisor.service").read_text()
    container.install(
        "pgsupervisor.service",
        shipped.replace("/opt/pgsupervisor/bin/pgsupervisor", "/opt/pgsupervisor/bin/python3 /opt/probe.py"),
    )
    container.run("systemctl", "start", "pgsupervisor")
    assert container.show("pgsupervisor", "StatusText") == "config none"


def test_journald_accepts_the_shipped_limits(container: SystemdContainer) -> None:
    """The drop-in for journald has no line that journald ignores."""
    container.write(
        "/etc/systemd/journald.conf.d/pgsupervisor.conf", (UNITS / "journald.conf.d/pgsupervisor.conf").read_text()
    )
    container.run("systemctl", "restart", "systemd-journald")
    container.run("logger", "after the restart")
    container.wait_for("MESSAGE=after the restart")
    complaints = [
        entry for entry in container.journal("_COMM=systemd-journal") if "pgsupervisor.conf" in str(entry["MESSAGE"])
    ]
    assert complaints == []
