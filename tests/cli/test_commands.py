"""The command line: what each command says, and with which exit status it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest
from support.launching import config, request

import supervisor

if TYPE_CHECKING:
    from pathlib import Path

    from support.launching import Launcher

COMMANDS = ("run", "check", "status", "reload", "pause", "resume", "restart", "unit")


def pgsupervisor(
    *arguments: str, cwd: Path | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its outcome."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "STATE_", "RUNTIME_"))}
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        cwd=cwd,
        env=kept | (environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_says_its_version() -> None:
    """`--version` prints the version and ends with 0."""
    done = pgsupervisor("--version")
    assert (done.returncode, done.stdout) == (0, f"pgsupervisor {supervisor.__version__}\n")


def test_help_lists_every_command() -> None:
    """`--help` names every command and nothing that does not exist yet."""
    done = pgsupervisor("--help")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ") and line.split()]
    assert tuple(name for name in listed if name in COMMANDS) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """`COMMAND --help` explains its options and ends with 0."""
    done = pgsupervisor(command, "--help")
    assert done.returncode == 0
    assert "--config FILE" in done.stdout
    assert "$PGSUPERVISOR_CONFIG" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("explode",),
        ("run", "--fast"),
        ("run", "surplus"),
        ("pause",),
        ("status", "--control"),
        ("reload", "-c"),
        ("status", "--js"),
        ("reload", "--dry"),
        ("--vers",),
        ("check", "--conn"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_64(arguments: tuple[str, ...]) -> None:
    """It says how it is used and what was wrong."""
    done = pgsupervisor(*arguments)
    assert done.returncode == 64
    assert done.stderr.startswith("usage: pgsupervisor")
    assert "error" in done.stderr or "pgsupervisor" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("pause", "--foo", "x"), "pause"),
        (("status", "extra"), "status"),
        (("append", "a", "b", "{}", "c"), "append"),
        (("projections", "list", "--foo"), "projections list"),
        (("projections", "--foo", "list"), "projections"),
        (("run", "extra"), "run"),
    ],
)
def test_a_wrong_argument_shows_the_usage_of_its_command(arguments: tuple[str, ...], command: str) -> None:
    """What a command does not know is reported with the usage of that command."""
    done = pgsupervisor(*arguments)
    assert done.returncode == 64
    assert done.stderr.startswith(f"usage: pgsupervisor {command} [-h]")
    assert "unrecognized arguments: " in done.stderr.splitlines()[-1]


def test_without_a_configuration_it_says_where_it_looked(tmp_path: Path) -> None:
    """No file named and none found: 78, with both places."""
    for command in ("run", "check"):
        done = pgsupervisor(command, cwd=tmp_path)
        assert done.returncode == 78
        assert str(tmp_path / "pgsupervisor.toml") in done.stderr
        assert "/etc/pgsupervisor/pgsupervisor.toml" in done.stderr


def test_the_environment_names_the_configuration(tmp_path: Path) -> None:
    """`PGSUPERVISOR_CONFIG` stands in for `-c`, and is named when it is wrong."""
    done = pgsupervisor("check", cwd=tmp_path, environ={"PGSUPERVISOR_CONFIG": "absent.toml"})
    assert done.returncode == 78
    assert "absent.toml" in done.stderr
    assert "$PGSUPERVISOR_CONFIG" in done.stderr


@pytest.mark.parametrize("arguments", [("status",), ("reload",), ("pause", "main"), ("status", "--json", "--watch")])
def test_without_a_daemon_it_says_where_it_looked(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Commands for a running daemon end with 69 and name every socket that was tried, also without a configuration."""
    done = pgsupervisor(*arguments, "-c", str(tmp_path / "shop.toml"))
    assert done.returncode == 69
    assert done.stdout == ""
    assert "No running daemon was found" in done.stderr
    assert "/run/pgsupervisor/shop/control.sock" in done.stderr
    assert str(tmp_path / ".pgsupervisor/control.sock") in done.stderr


def test_finds_the_daemon_through_a_broken_file_and_from_anywhere(
    launch: Launcher, database: str, tmp_path: Path
) -> None:
    """The socket is found while the file is broken, by --control alone, and from any folder."""
    daemon = launch.ready(config(database))
    daemon.config.write_text('[supervisor]\nstate_dir = "state"\ndsn = [[[\n')
    for arguments in (
        ("-c", str(daemon.config)),
        ("-c", "app/app.toml"),
        ("--control", str(daemon.folder / "state" / "control.sock")),
        ("--control", "app/state/control.sock"),
    ):
        done = pgsupervisor("status", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Running 1 worker" in done.stdout
    done = pgsupervisor("status", cwd=tmp_path, environ={"PGSUPERVISOR_CONFIG": str(daemon.config)})
    assert done.returncode == 0


def test_orders_are_confirmed_or_refused(launch: Launcher, database: str) -> None:
    """A command for a worker prints what was done; a wrong name is refused with 1 and the nearest name."""
    daemon = launch.ready(config(database))
    for command, done in (("pause", "paused"), ("resume", "resumed"), ("restart", "restarted")):
        answer = daemon.run_command(command, "main")
        assert (answer.returncode, answer.stdout) == (0, f"main: {done}\n")
    answer = daemon.run_command("restart", "mail")
    assert answer.returncode == 1
    assert "there is no worker 'mail'; did you mean 'main'?" in answer.stderr


def test_reload_prints_what_changed(launch: Launcher, database: str) -> None:
    """An applied reload ends with 0 and says what it did."""
    daemon = launch.ready(config(database))
    done = daemon.run_command("reload")
    assert (done.returncode, done.stdout) == (0, "Nothing has changed.\n")
    daemon.write(config(database, workers='[workers.next]\nrun = "workers:work"\n'))
    done = daemon.run_command("reload")
    assert (done.returncode, done.stdout) == (0, "added: next\nremoved: main\n")


def test_a_dry_run_says_what_would_be_refused(launch: Launcher, database: str) -> None:
    """`reload --dry-run` of a wrong file ends with 1 and the reason, and has not asked for a reload."""
    daemon = launch.ready(config(database))
    daemon.write(config(database, database="pol_max = 3"))
    done = daemon.run_command("reload", "--dry-run")
    assert done.returncode == 1
    assert done.stderr.startswith("Would be refused:\n")
    assert "pool_max" in done.stderr
    daemon.write(config(database))
    done = daemon.run_command("reload", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert not daemon.said("reload.started")


STATUS_KEYS = {
    "name", "version", "pid", "config", "state", "status", "uptime_s", "ready", "database", "workers", "reload",
    "journal",
}  # fmt: skip
DATABASE_KEYS = {"state", "dsn", "address", "since_s", "reason", "attempts", "next_try_s", "pool"}
WORKER_KEYS = {
    "name", "kind", "wanted", "state", "replicas", "running", "runs", "restarts", "failures", "last_error",
    "last_started", "last_ended", "next_run", "uptime_s", "abandoned", "leases",
}  # fmt: skip


def test_status_for_people_and_for_programs(launch: Launcher, database: str) -> None:
    """The table names daemon, database and every worker; the JSON has a stable set of keys and no password."""
    text = config(
        database.replace("postgres@", "postgres:hidden@"),
        workers='[workers.main]\nrun = "workers:work"\n[workers.tick]\nkind = "periodic"\nrun = "workers:tick"\n'
        'every = "1h"\nimmediate = false\n',
    )
    work = """
        async def work(ctx):
            await ctx.sleep(3600)
        async def tick(ctx):
            pass
    """
    daemon = launch.ready(text, work)
    shown = daemon.run_command("status").stdout.splitlines()
    assert shown[0].startswith("app: Running 2 workers on 127.0.0.1:")
    assert f"pid {daemon.pid}" in shown[1]
    assert "database up" in shown[2]
    assert [line.split()[:4] for line in shown[-2:]] == [
        ["main", "service", "running", "1/1"],
        ["tick", "periodic", "scheduled", "0/1"],
    ]
    found = daemon.status()
    assert set(found) == STATUS_KEYS
    assert set(found["database"]) == DATABASE_KEYS
    assert {frozenset(row) for row in found["workers"]} == {frozenset(WORKER_KEYS)}
    assert set(found["database"]["pool"]) == {"size", "idle", "max", "starved", "waiting"}
    assert set(found["reload"]) == {"last", "refused", "incomplete"}
    assert set(found["journal"]) == {"written", "folded", "dropped"}
    assert "hidden" not in str(found) + "\n".join(shown)


def test_watch_shows_frames_until_ctrl_c(launch: Launcher, database: str) -> None:
    """`status --watch` prints again and again, and Ctrl-C ends it without a traceback."""
    daemon = launch.ready(config(database))
    with _watching(daemon.folder, str(daemon.config)) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        for _ in range(2):
            _read_until(watch.stdout, "app: Running")
        request(daemon, "pause", worker="main")
        _read_until(watch.stdout, "paused")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(20) == 130
        assert watch.stderr.read() == ""


def test_watch_goes_on_over_a_restart_of_the_daemon(launch: Launcher, database: str) -> None:
    """A daemon that stops answering is reported, and shown again when it is back."""
    daemon = launch.ready(config(database))
    with _watching(daemon.folder, str(daemon.config)) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        _read_until(watch.stdout, f"pid {daemon.pid}")
        assert daemon.stop() == 0
        assert "No running daemon was found" in watch.stderr.readline()
        successor = launch.ready(config(database))
        _read_until(watch.stdout, f"pid {successor.pid}")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(20) == 130


def _read_until(stream: IO[str], text: str) -> None:
    """Read lines until one says this; a command that ended before never will."""
    assert any(text in line for line in iter(stream.readline, "")), text


def _watching(folder: Path, path: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "supervisor", "status", "--watch", "-c", path],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_closed_pipe_is_no_error(launch: Launcher, database: str) -> None:
    """`status | head -1` ends when the reader has read enough, also with --watch."""
    daemon = launch.ready(config(database))
    for extra in ("", "--watch", "--json"):
        script = (
            f"{sys.executable} -m supervisor status {extra} -c {daemon.config} | head -c 1; echo ${{PIPESTATUS[0]}}"
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=daemon.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
        assert done.stdout[1:] in {"0\n", "141\n"}


@pytest.mark.parametrize("arguments", [("status",), ("reload",), ("--help",), ("check",)], ids=" ".join)
def test_an_output_that_nobody_reads_is_no_traceback(
    launch: Launcher, database: str, arguments: tuple[str, ...]
) -> None:
    """A pipe that was closed before anything was printed: no traceback, and no other status than 0."""
    daemon = launch.ready(config(database))
    reader, writer = os.pipe()
    os.close(reader)
    extra = () if arguments == ("--help",) else ("-c", str(daemon.config))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *arguments, *extra],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=daemon.folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_refusal_that_nobody_reads_is_still_one(launch: Launcher, database: str) -> None:
    """A refused reload ends with 1, also when its output is closed or goes nowhere."""
    daemon = launch.ready(config(database))
    daemon.config.write_text('[supervisor]\nstate_dir = "state"\ndsn = [[[\n')
    command = f"{sys.executable} -m supervisor reload -c {daemon.config}"
    for where in ("2>&-", ">&- 2>&-", "2>/dev/full", "2> >(true)"):
        done = subprocess.run(["bash", "-c", f"{command} {where}"], cwd=daemon.folder, timeout=60, check=False)
        assert done.returncode == 1, where


def test_sigterm_ends_other_commands_as_usual(launch: Launcher, database: str) -> None:
    """Only the daemon holds its signals back."""
    daemon = launch.ready(config(database))
    with _watching(daemon.folder, str(daemon.config)) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        watch.terminate()
        assert watch.wait(20) == -signal.SIGTERM
