"""Where state and control socket are, for the daemon and for its clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.config_file import DATABASE, WORKER, config_of, write_config

from supervisor.config.paths import control_candidates

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
    """Without a word in the file: runtime directory, /run/pgsupervisor/NAME, state directory, in this order."""
    path = write_config(tmp_path, BASE)
    state = tmp_path / ".pgsupervisor/control.sock"
    assert control_candidates(None, path, {}) == [SYSTEM, state]
    assert control_candidates(None, path, {"RUNTIME_DIRECTORY": "/run/x"}) == [
        Path("/run/x/control.sock"),
        SYSTEM,
        state,
    ]
    assert control_candidates(None, path, {"STATE_DIRECTORY": "/s"}) == [SYSTEM, Path("/s/control.sock")]


def test_a_client_believes_who_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
