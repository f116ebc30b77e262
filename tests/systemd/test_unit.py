from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.systemd.unit import Installation, render_unit
from supervisor.systemd.unit_access import access_problems, outermost, this_command, this_python

CHECKOUT = Path(__file__).parents[2]
COMMAND = ("/opt/pgsupervisor/bin/pgsupervisor",)
SHIPPED = {
    "pgsupervisor.service": Installation("pgsupervisor", COMMAND, Path("/etc/pgsupervisor/pgsupervisor.toml")),
    "pgsupervisor@.service": Installation("%i", COMMAND, Path("/etc/pgsupervisor/%i.toml"), is_template=True),
}


def lines(unit: str, key: str) -> list[str]:
    """Return the values of a key, in order."""
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{key}=")]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_units_are_what_is_printed(name: str) -> None:
    """systemd/ ships exactly what `pgsupervisor unit` prints for its paths, so that there is one source."""
    assert (CHECKOUT / "systemd" / name).read_text() == render_unit(SHIPPED[name])


def test_both_drop_ins_are_the_same() -> None:
    """The drop-in for notify-reload says the same for the one unit and for the template."""
    folder = CHECKOUT / "systemd"
    drop_ins = [(folder / f"{name}.d" / "notify-reload.conf").read_text() for name in SHIPPED]
    assert drop_ins[0] == drop_ins[1]
    assert "Type=notify-reload" in drop_ins[0]


def test_names_what_belongs_to_the_instance() -> None:
    """User, folders and credential carry the daemon's name, so that instances do not share them."""
    unit = render_unit(Installation("mail", COMMAND, Path("/etc/pgsupervisor/mail.toml"), stop_timeout_s=60.0))
    assert lines(unit, "User") == ["pgsupervisor-mail"]
    assert lines(unit, "RuntimeDirectory") == ["pgsupervisor/mail"]
    assert lines(unit, "StateDirectory") == ["pgsupervisor/mail"]
    assert lines(unit, "LoadCredential") == ["dsn:pgsupervisor.mail.dsn"]
    assert lines(unit, "TimeoutStopSec") == ["75s"]
    assert lines(unit, "ExecReload") == ["/opt/pgsupervisor/bin/pgsupervisor reload -c /etc/pgsupervisor/mail.toml"]


@pytest.mark.parametrize("name", ["Überwacher", "with space", "9" * 30, "dot.ted"])
def test_leaves_the_user_to_systemd_when_the_name_makes_none(name: str) -> None:
    """A daemon's name that is no valid user name is not used as one."""
    assert lines(render_unit(Installation(name, COMMAND, Path("/etc/x.toml"))), "User") == []


def test_writes_any_path_as_one_word() -> None:
    """Blanks, quotes, percent and dollar signs in paths arrive at the command as they are."""
    command = ("/opt/my venv/bin/python", "-m", "supervisor")
    unit = render_unit(Installation("app", command, Path('/etc/100%/a "b" $HOME.toml')))
    assert lines(unit, "ExecReload") == [
        '"/opt/my venv/bin/python" -m supervisor reload -c "/etc/100%%/a \\"b\\" $$HOME.toml"'
    ]


def test_hides_the_homes_when_nothing_lies_there() -> None:
    """An installation under /opt needs no exception."""
    unit = render_unit(SHIPPED["pgsupervisor.service"])
    assert lines(unit, "ProtectHome") == ["yes"]
    assert lines(unit, "BindReadOnlyPaths") == []


def test_shows_what_lies_in_the_homes_and_no_more() -> None:
    """Of a Python, a configuration and workers in homes or /tmp, each folder alone is shown, none twice."""
    reads = (Path("/root/.pyenv/versions/3.11"), Path("/srv/app/.venv"), Path("/tmp/workers"), Path("/home/dev/app/w"))
    unit = render_unit(Installation("app", ("/srv/app/.venv/bin/pgsupervisor",), Path("/home/dev/app/app.toml"), reads))
    assert lines(unit, "ProtectHome") == ["tmpfs"]
    assert lines(unit, "BindReadOnlyPaths") == ["/home/dev/app", "/root/.pyenv/versions/3.11", "/tmp/workers"]


@pytest.mark.parametrize("path", ["/root/app.toml", "/home/dev/app.toml", "/tmp/app.toml"])
def test_never_shows_a_whole_home_for_one_file(path: str) -> None:
    """A configuration that lies directly in a home is shown alone."""
    assert lines(render_unit(Installation("app", COMMAND, Path(path))), "BindReadOnlyPaths") == [path]


def test_hands_a_dsn_file_over_as_a_credential() -> None:
    """Systemd reads the file as root, and the daemon is sent to systemd's copy."""
    unit = render_unit(Installation("app", COMMAND, Path("/etc/app.toml"), dsn_file=Path("/etc/app.dsn")))
    assert lines(unit, "LoadCredential") == ["dsn:/etc/app.dsn"]
    assert lines(unit, "Environment") == ["PGSUPERVISOR__DATABASE__DSN_FILE=%d/dsn"]


def test_lets_a_store_elsewhere_be_written() -> None:
    """A store outside the state directory is the only other place that can be written."""
    unit = render_unit(Installation("app", COMMAND, Path("/etc/app.toml"), writes=(Path("/srv/pg data"),)))
    assert lines(unit, "ReadWritePaths") == ['"/srv/pg data"']


def test_keeps_only_the_outermost_folders() -> None:
    """A folder inside another one needs no mention."""
    assert outermost(map(Path, ("/a/b", "/a", "/ab", "/a/b/c", "/a"))) == (Path("/a"), Path("/ab"))


def test_finds_its_own_python_and_command() -> None:
    """The running program is found with absolute paths, whatever folder it was started from."""
    assert Path(this_command()[0]).is_absolute()
    folders = this_python()
    assert any(Path(os.__file__).resolve().is_relative_to(folder) for folder in folders)
    assert any((CHECKOUT / "supervisor").is_relative_to(folder) for folder in folders)


def test_says_what_keeps_the_daemon_out(tmp_path: Path) -> None:
    """A closed or missing file and one that will be cleared away are each named with what to do."""
    closed = tmp_path / "closed.toml"
    closed.touch(mode=0o600)
    found = "\n".join(access_problems([closed, tmp_path / "missing"]))
    assert f"{closed} is not readable for the unit's user (mode 0600): chmod o+rX" in found
    assert f"{tmp_path}/missing cannot be read" in found
    assert "install under /opt" in found


def test_finds_nothing_wrong_with_what_everybody_reads() -> None:
    """The system's own folders have no access problem."""
    assert access_problems([Path("/usr/bin"), Path("/usr/bin/env")]) == ()
