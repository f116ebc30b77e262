"""`systemctl reload` as an operator knows it, with `Type=notify` and `ExecReload=` and with notify-reload."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.systemd_container import DEADLINE_S, SystemdContainer
from support.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.systemd

_WORKER = '[workers.{name}]\nrun = "{module}:work"\n'
# Its import takes longer than the unit's whole patience below.
_SLOW = """
import time
from workers import work
time.sleep(2.5)
"""


@pytest.fixture(params=["shared_container", "shared_trixie_container"], ids=["notify", "notify-reload"])
def unit(request: pytest.FixtureRequest, database: str) -> Iterator[Unit]:
    """A running daemon under this machine's systemd, and under one that knows notify-reload."""
    container: SystemdContainer = request.getfixturevalue(request.param)
    with Unit(container, database) as unit:
        unit.start()
        yield unit


def _settled(unit: Unit) -> None:
    """Wait until systemd sees no reload under way."""
    deadline_s = time.monotonic() + DEADLINE_S
    while unit.show("ActiveState") != "active":
        assert time.monotonic() < deadline_s, unit.show("ActiveState")


def test_one_reload_for_each_order(unit: Unit) -> None:
    """Each `systemctl reload` is one reload, although a SIGHUP and a client may both ask for it."""
    for count in (1, 2, 3):
        unit.systemctl("reload")
        assert len(unit.journal("EVENT=reload.applied")) == count
        assert len(unit.journal("EVENT=reload.started")) == count
    _settled(unit)


def test_applies_what_has_changed(unit: Unit) -> None:
    """When `systemctl reload` returns the new configuration runs."""
    unit.write(config=_WORKER.format(name="second", module="workers"))
    unit.systemctl("reload")
    assert [worker["name"] for worker in unit.status()["workers"]] == ["main", "second"]
    assert "Running 2 workers" in unit.show("StatusText")


def test_returns_amid_sighups(unit: Unit) -> None:
    """`systemctl reload` returns with success while ten more SIGHUPs come, and the daemon stays as it was."""
    before = unit.pid
    with ThreadPoolExecutor() as pool:
        order = pool.submit(unit.systemctl, "reload")
        for _ in range(10):
            unit.kill("HUP")
        order.result()
    _settled(unit)
    unit.systemctl("reload")
    _settled(unit)
    assert unit.pid == before
    assert unit.show("NRestarts") == "0"
    assert 2 <= len(unit.journal("EVENT=reload.started")) <= 12
    assert unit.journal("EVENT=reload.rejected") == []


def test_a_refused_reload_fails_and_changes_nothing(unit: Unit) -> None:
    """A wrong configuration fails `systemctl reload`; STATUS and journal say why, and the old one runs on."""
    unit.write(config="pool_mix = 3\n")
    assert unit.systemctl("reload", check=False).returncode != 0
    _settled(unit)
    assert "The last reload was refused" in unit.show("StatusText")
    assert "database.pool_mix" in unit.show("StatusText")
    # With notify-reload the client tries again what the SIGHUP was refused.
    attempts = len(unit.journal("EVENT=reload.started"))
    assert attempts in (1, 2)
    rejected = unit.journal("EVENT=reload.rejected")
    assert 1 <= len(rejected) <= attempts
    for entry in rejected:
        assert "database.pool_mix" in entry["FAULTS"]
        assert entry["PRIORITY"] == "3"
    assert unit.status()["workers"][0]["state"] == "running"
    unit.write(config="")
    unit.systemctl("reload")
    assert "refused" not in unit.show("StatusText")
    assert unit.show("NRestarts") == "0"


def test_a_slow_reload_is_waited_for(unit: Unit) -> None:
    """A reload that takes longer than the unit's start timeout is not given up: the daemon asks for more time."""
    unit.container.install(f"{unit.unit}.d/impatient.conf", "[Service]\nTimeoutStartSec=2s\n")
    unit.container.write(f"{unit.folder}/slow.py", _SLOW)
    unit.write(config=_WORKER.format(name="second", module="slow"))
    unit.systemctl("reload")
    assert [worker["name"] for worker in unit.status()["workers"]] == ["main", "second"]
    _settled(unit)
    assert unit.show("NRestarts") == "0"
