"""Which file is the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config.paths import config_path, find_config
from supervisor.errors import ConfigError


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
