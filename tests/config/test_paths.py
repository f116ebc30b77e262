"""Which file is the configuration, and where the state directory and the control socket are."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.config_file import DATABASE, WORKER, config_of, write_config

from supervisor.config.paths import config_path, control_candidates, find_config
from supervisor.errors import ConfigError

BASE = DATABASE + WORKER
SYSTEM = Path("/run/pgsupervisor/app/control.sock")


def test_systemds_directories_are_the_defaults(tmp_path: Path) -> None:
    """The first state and runtime directory of the unit hold state and socket."""
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a:/run/b"}
    daemon = config_of(tmp_path, BASE, **environ).daemon
    assert (daemon.state_dir, daemon.control) == (Path("/var/lib/a"), Path("/run/a/control.sock"))


def test_without_systemd_everything_is_beside_the_file(tmp_path: Path) -> None:
    """State and socket are in .pgsupervisor beside the configuration."""
    daemon = config_of(tmp_path, BASE).daemon
    assert (daemon.state_dir, daemon.control) == (tmp_path / ".pgsupervisor", tmp_path / ".pgsupervisor/control.sock")


def test_the_socket_follows_the_state_directory(tmp_path: Path) -> None:
    """A state_dir of the file's moves the socket along; `..` is resolved."""
    (tmp_path / "config").mkdir()
    daemon = config_of(tmp_path / "config", f'[supervisor]\nstate_dir = "../state"\n{BASE}').daemon
    assert (daemon.state_dir, daemon.control) == (tmp_path / "state", tmp_path / "state/control.sock")


def test_a_path_of_any_length_serves(tmp_path: Path) -> None:
    """A socket's path holds 107 bytes, but daemon and commands reach longer ones through their folder."""
    control = "/tmp/" + "x/" * 120 + "control.sock"
    assert config_of(tmp_path, f'[supervisor]\ncontrol = "{control}"\n{BASE}').daemon.control == Path(control)


def test_a_client_tries_the_usual_places(tmp_path: Path) -> None:
    """Without a key in the file: runtime directory, /run/pgsupervisor/NAME, state directory, in this order."""
    path = write_config(tmp_path, BASE)
    state = tmp_path / ".pgsupervisor/control.sock"
    assert control_candidates(None, path, {}) == [SYSTEM, state]
    assert control_candidates(None, path, {"RUNTIME_DIRECTORY": "/run/x"}) == [
        Path("/run/x/control.sock"),
        SYSTEM,
        state,
    ]
    assert control_candidates(None, path, {"STATE_DIRECTORY": "/s"}) == [SYSTEM, Path("/s/control.sock")]


def test_the_command_line_comes_before_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--control comes before the environment, the environment before the file; then nothing else is tried."""
    path = write_config(tmp_path, f'[supervisor]\ncontrol = "c.sock"\n{BASE}')
    environ = {"PGSUPERVISOR__SUPERVISOR__CONTROL": "e.sock", "RUNTIME_DIRECTORY": "/run/x"}
    monkeypatch.chdir(tmp_path)
    assert control_candidates("a.sock", path, environ) == [tmp_path / "a.sock"]
    assert control_candidates(None, path, environ) == [tmp_path / "e.sock"]
    assert control_candidates(None, Path("app.toml"), {}) == [tmp_path / "c.sock"]


BROKEN = [
    '[supervisor]\ncontrol = "c.sock"\n[database\n',
    '[log\n[supervisor]\nready = =\ncontrol = "c.sock"  # here\n',
    'supervisor.control = "c.sock"\n[[[\n',
    "[ supervisor ]\n  control='c.sock'\n[x]\ncontrol = 'wrong'\nx = = 1\n",
    '[supervisor]\ncontrol = "c.sock"\n[x]\nsupervisor.control = "wrong"\n[[[\n',
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_still_says_where_the_socket_is(tmp_path: Path, text: str) -> None:
    """A client finds the running daemon while the file is being repaired."""
    assert control_candidates(None, write_config(tmp_path, text), {}) == [tmp_path / "c.sock"]


@pytest.mark.parametrize(
    "text", ["[supervisor]\ncontrol = \n[[", "supervisor = 3", "[supervisor]\ncontrol = 3", "\0", "[" * 9000]
)
def test_no_file_stops_a_client(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, there are places to try."""
    assert control_candidates(None, write_config(tmp_path, text), {})[0] == SYSTEM


def test_a_missing_or_secret_file_does_not_stop_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the file is enough, and without a file its usual name."""
    assert control_candidates(None, tmp_path / "app.toml", {})[0] == SYSTEM
    assert control_candidates(None, tmp_path, {})[0] == Path("/run/pgsupervisor", tmp_path.stem, "control.sock")
    monkeypatch.chdir(tmp_path)
    assert control_candidates(None, None, {}) == [
        Path("/run/pgsupervisor/pgsupervisor/control.sock"),
        tmp_path / ".pgsupervisor/control.sock",
    ]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _fault(explicit: str | None, environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        find_config(explicit, environ)
    return str(caught.value)


def test_the_nearest_word_counts(tmp_path: Path) -> None:
    """-c comes before the variable, the variable before the file in the working directory."""
    for name in ("a.toml", "b.toml", "pgsupervisor.toml"):
        (tmp_path / name).touch()
    environ = {"PGSUPERVISOR_CONFIG": "b.toml"}
    assert find_config("a.toml", environ) == tmp_path / "a.toml"
    assert find_config(None, environ) == tmp_path / "b.toml"
    assert find_config(None, {}) == tmp_path / "pgsupervisor.toml"
    assert find_config(None, {"PGSUPERVISOR_CONFIG": ""}) == tmp_path / "pgsupervisor.toml"


def test_a_missing_file_is_named_with_who_named_it(tmp_path: Path) -> None:
    """A named file that is not there is a fault; no other one is taken instead."""
    (tmp_path / "pgsupervisor.toml").touch()
    assert _fault("x.toml", {}) == f"{tmp_path}/x.toml: does not exist (named by -c)"
    assert _fault(None, {"PGSUPERVISOR_CONFIG": "/x"}) == "/x: does not exist (named by $PGSUPERVISOR_CONFIG)"


@pytest.mark.skipif(Path("/etc/pgsupervisor").exists(), reason="this machine has a configuration of its own")
def test_no_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """Without any file the fault says the places and what to do."""
    assert config_path(None, {}) is None
    assert _fault(None, {}) == (
        f"pgsupervisor.toml: there is no configuration: looked for {tmp_path}/pgsupervisor.toml and"
        " /etc/pgsupervisor/pgsupervisor.toml; write one, or name it with -c FILE or $PGSUPERVISOR_CONFIG"
    )


def test_a_deleted_working_directory_is_no_surprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name in a directory that is gone does not exist."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "does not exist" in _fault("x.toml", {})
