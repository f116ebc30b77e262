"""Reload: the whole new configuration or nothing of it, and unchanged workers do not notice."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import IDLE, config, count, request, status, worker_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

MAIN = '[workers.main]\nrun = "workers:work"\n'
OTHER = '[workers.other]\nrun = "workers:work"\n'

_REFUSED: dict[str, tuple[Callable[[str], str], str]] = {
    "broken TOML": (lambda _: "[supervisor\n", "app.toml"),
    "wrong type": (lambda dsn: config(dsn, database="pool_max = 'many'"), "database.pool_max"),
    "unknown key": (lambda dsn: config(dsn, database="pol_max = 3"), "pool_max"),
    "failing import": (lambda dsn: config(dsn, workers=MAIN + OTHER.replace("workers:", "broken:")), "KeyError: 'no'"),
    "absent module": (lambda dsn: config(dsn, workers=MAIN + OTHER.replace("workers:", "absent:")), "absent"),
    "absent function": (lambda dsn: config(dsn, workers=MAIN + OTHER.replace(":work", ":wrok")), "did you mean 'work'"),
    "unreachable server": (lambda _: config("postgresql://x@127.0.0.1:1/x", workers=MAIN + OTHER), "database.dsn"),
    "needs a restart": (lambda dsn: config(dsn, supervisor='control = "elsewhere.sock"'), "needs a restart"),
    "another store": (lambda _: config("embedded:"), "needs a restart"),
}


@pytest.mark.parametrize("kind", _REFUSED)
def test_a_wrong_configuration_is_refused_as_a_whole(launch: Launcher, database: str, kind: str) -> None:
    """Nothing of it takes effect; journal, status, exit status and stderr say why, until a good one follows."""
    make, said = _REFUSED[kind]
    daemon = launch.ready(config(database))
    (daemon.folder / "broken.py").write_text("{}['no']\n")
    daemon.write(make(database))
    done = daemon.run_command("reload", "--control", str(daemon.folder / "state" / "control.sock"))
    assert done.returncode == 1
    assert said in done.stderr
    assert "the old configuration runs on" in done.stderr
    assert said in daemon.wait_for("reload.rejected")["faults"]
    now = status(daemon)
    assert now["reload"]["refused"]
    assert "The last reload was refused" in now["status"]
    assert [(row["name"], row["state"], row["runs"]) for row in now["workers"]] == [("main", "running", 1)]
    daemon.write(config(database, workers=MAIN + OTHER))
    assert request(daemon, "reload")["ok"]
    now = status(daemon)
    assert now["reload"]["refused"] is None
    assert "refused" not in now["status"]
    assert {row["name"] for row in now["workers"]} == {"main", "other"}


def test_a_refused_sighup_is_logged_too(launch: Launcher, database: str) -> None:
    """A SIGHUP, which has no client to answer, leaves the refusal in the journal and in the status."""
    daemon = launch.ready(config(database))
    daemon.write(config(database, more="[log]\nlevel = 'loud'"))
    daemon.signal(signal.SIGHUP)
    assert "log.level" in daemon.wait_for("reload.rejected")["faults"]
    assert "log.level" in status(daemon)["reload"]["refused"]


_COUNTS = """
    import asyncio
    started = []
    async def work(ctx):
        started.append(ctx.name)
        ctx.log.info("run", number=started.count(ctx.name), settings=dict(ctx.settings))
        while not ctx.stopping:
            await ctx.sleep(3600)
"""


def test_only_the_difference_is_applied(launch: Launcher, database: str) -> None:
    """Added workers start, removed ones end, changed ones start anew; untouched and retuned ones notice nothing."""
    names = ("gone", "changed", "retuned", "untouched")
    before = {name: f'[workers.{name}]\nrun = "workers:work"\n' for name in names}
    daemon = launch.ready(config(database, workers="".join(before.values())), _COUNTS)
    for name in names:
        daemon.wait_for("run", worker=name)
    after = {**before, "added": '[workers.added]\nrun = "workers:work"\n'}
    del after["gone"]
    after["changed"] += "settings = { size = 3 }\n"
    after["retuned"] += "max_restarts = 3\n"
    daemon.write(config(database, workers="".join(after.values())))
    mark = daemon.mark
    answer = request(daemon, "reload")
    assert answer["ok"]
    assert answer["lines"] == ["added: added", "changed: changed, retuned", "removed: gone"]
    daemon.wait_for("worker.stopped", worker="gone")
    assert daemon.wait_for("run", worker="added")["number"] == 1
    again = daemon.wait_for("run", worker="changed", after=mark)
    assert (again["number"], again["settings"]) == (2, "{'size': 3}")
    rows = {row["name"]: row["runs"] for row in status(daemon)["workers"]}
    assert rows == {"changed": 2, "retuned": 1, "untouched": 1, "added": 1}
    mentioned = {entry.get("worker") for entry in daemon.entries[mark:]}
    assert not mentioned & {"untouched", "retuned"}


def test_log_and_stall_warning_take_effect_at_once(launch: Launcher, database: str) -> None:
    """A reload changes what is said, in which form, and how long the loop may stand still."""
    work = """
        import time
        async def work(ctx):
            while not ctx.stopping:
                ctx.log.debug("fine detail")
                time.sleep(0.15)
                await ctx.sleep(0.01)
    """
    daemon = launch.ready(config(database, supervisor='stall_warning = "1h"'), work)
    daemon.write(config(database, supervisor='stall_warning = "50ms"', more='[log]\nlevel = "debug"'))
    assert request(daemon, "reload")["ok"]
    daemon.wait_for("fine detail")
    daemon.wait_for("loop.blocked")
    daemon.write(config(database, supervisor='stall_warning = "1h"', more='[log]\nlevel = "info"\nformat = "terminal"'))
    assert request(daemon, "reload")["ok"]
    daemon.wait_until(lambda: any("new configuration runs" in line for line in daemon.other_lines), "readable line")


def test_a_paused_worker_stays_paused(launch: Launcher, database: str) -> None:
    """A reload does not wake a paused worker, not even one that it changes."""
    daemon = launch.ready(config(database, workers=MAIN + OTHER))
    for name in ("main", "other"):
        assert request(daemon, "pause", worker=name)["ok"]
        daemon.wait_for("worker.paused", worker=name)
    daemon.write(config(database, workers=MAIN + OTHER + "settings = { a = 1 }\n"))
    assert request(daemon, "reload")["ok"]
    daemon.wait_for("worker.paused", worker="other", after=daemon.mark - 5)
    assert [worker_row(daemon, name)["state"] for name in ("main", "other")] == ["paused", "paused"]
    assert request(daemon, "resume", worker="other")["ok"]
    daemon.wait_for("worker.unpaused", worker="other")


_WRITES = """
    import asyncio
    async def work(ctx):
        at = await ctx.db.fetchval("select current_database()")
        ctx.log.info("slow begins", at=at)
        at = await ctx.db.fetchval("select current_database() from pg_sleep($1)", ctx.settings["slow_s"])
        ctx.log.info("slow ended", at=at)
        while True:
            at = await ctx.db.fetchval("select current_database()")
            ctx.log.info(f"works at {at}")
            await ctx.sleep(0.02)
"""
_SLOW = MAIN + "settings = { slow_s = 1.0 }\n"


def test_a_changed_dsn_moves_the_work_over(launch: Launcher, database: str, shared_postgres: Postgres) -> None:
    """Statements in flight end on the old database, later ones run on the new one, and no old connection stays."""
    old = database.rpartition("/")[2]
    new = f"{old}_next"
    shared_postgres.execute(f"create database {new}")
    try:
        daemon = launch.ready(config(database, workers=_SLOW), _WRITES)
        daemon.wait_for("slow begins", at=old)
        daemon.write(config(shared_postgres.dsn(dbname=new), workers=_SLOW))
        assert request(daemon, "reload")["ok"]
        assert "database" in daemon.wait_for("reload.applied")["changed"]
        assert daemon.wait_for("slow ended")["at"] == old
        daemon.wait_for(f"works at {new}")
        _wait_for_sessions(shared_postgres, f"datname = '{old}'", 0)
        assert worker_row(daemon)["runs"] == 1
        assert not daemon.said("worker.failed")
        assert not daemon.said("database.lost")
        assert status(daemon)["database"]["dsn"].endswith(new)
        assert daemon.stop() == 0
    finally:
        shared_postgres.execute(f"drop database {new} with (force)")


def _wait_for_sessions(server: Postgres, condition: str, count: int) -> None:
    import time

    deadline = time.monotonic() + 20
    while server.sessions(condition) != count:
        assert time.monotonic() < deadline, server.execute("select pid, query from pg_stat_activity")
        time.sleep(0.05)


def test_a_dsn_is_corrected_while_the_database_is_down(launch: Launcher, postgres: Postgres, database: str) -> None:
    """While the old database is down, another one that is down is refused, and one that answers is switched to."""
    daemon = launch.ready(config(postgres.dsn(), workers=MAIN), IDLE)
    postgres.stop("immediate")
    daemon.wait_for("database.lost")
    daemon.write(config("postgresql://x@127.0.0.1:1/x"))
    assert not request(daemon, "reload")["ok"]
    assert status(daemon)["state"] == "database-down"
    daemon.write(config(database))
    assert request(daemon, "reload")["ok"]
    now = status(daemon)
    assert (now["state"], now["database"]["state"]) == ("running", "up")
    assert daemon.stop() == 0


def test_a_dry_run_changes_nothing(launch: Launcher, database: str) -> None:
    """`reload --dry-run` prints what would change, or what is wrong, and does neither."""
    daemon = launch.ready(config(database))
    assert daemon.run_command("reload", "--dry-run").stdout == "nothing changes\n"
    daemon.write(config(database, workers=MAIN + OTHER))
    done = daemon.run_command("reload", "--dry-run")
    assert done.returncode == 0
    assert "other" in done.stdout
    daemon.write(config(database, database="pool_max = 'many'"))
    done = daemon.run_command("reload", "--dry-run")
    assert done.returncode == 1
    assert "database.pool_max" in done.stderr
    assert [row["name"] for row in status(daemon)["workers"]] == ["main"]
    assert not daemon.said("reload.started")
    assert status(daemon)["reload"] == {"last": None, "refused": None, "incomplete": None}


def test_three_hundred_sighups_in_a_second(launch: Launcher, database: str) -> None:
    """A storm of SIGHUPs costs a few reloads, never an error, and untouched workers do not notice."""
    daemon = launch.ready(config(database))
    import time

    for _ in range(300):
        daemon.signal(signal.SIGHUP)
        time.sleep(0.003)
    daemon.wait_for("reload.applied")
    assert request(daemon, "reload")["ok"]
    assert worker_row(daemon)["runs"] == 1
    assert daemon.stop() == 0
    assert not daemon.said("reload.rejected")
    assert count(daemon, "reload.started") <= 301


def _slow_reload(daemon: Daemon, database: str) -> None:
    """Make the next reload last until the file `go` is there."""
    (daemon.folder / "slow.py").write_text(
        "import pathlib, time\n"
        "here = pathlib.Path(__file__)\n"
        "here.with_name('importing').touch()\n"
        "while not here.with_name('go').exists():\n    time.sleep(0.01)\n"
        "async def work(ctx):\n    await ctx.sleep(3600)\n"
    )
    daemon.write(config(database, workers=MAIN + '[workers.slow]\nrun = "slow:work"\n'))


def _is_importing(daemon: Daemon) -> None:
    import time

    deadline = time.monotonic() + 20
    while not (daemon.folder / "importing").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_sighups_during_a_reload_are_one_more(launch: Launcher, database: str) -> None:
    """However many SIGHUPs come while a reload runs, exactly one more follows."""
    daemon = launch.ready(config(database))
    _slow_reload(daemon, database)
    daemon.signal(signal.SIGHUP)
    _is_importing(daemon)
    for _ in range(20):
        daemon.signal(signal.SIGHUP)
    status(daemon)  # they were heard before this was answered
    (daemon.folder / "go").touch()
    daemon.wait_for("reload.applied", after=daemon.entries.index(daemon.wait_for("reload.applied")) + 1)
    status(daemon)
    assert daemon.stop() == 0
    assert count(daemon, "reload.started") == 2


def _in_thread(daemon: Daemon, answers: list[dict[str, Any]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(request(daemon, "reload")))
    thread.start()
    return thread


def test_a_client_joins_the_reload_of_a_sighup(launch: Launcher, database: str) -> None:
    """Under notify-reload systemd sends a SIGHUP and runs the client: together they are one reload."""
    daemon = launch.ready(config(database))
    _slow_reload(daemon, database)
    daemon.signal(signal.SIGHUP)
    _is_importing(daemon)
    answers: list[dict[str, Any]] = []
    client = _in_thread(daemon, answers)
    status(daemon)
    (daemon.folder / "go").touch()
    client.join()
    assert answers[0]["lines"] == ["added: slow"]
    # Also one that comes just after it: a client takes longer to start than a reload takes.
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reload.applied", after=daemon.entries.index(daemon.wait_for("reload.applied")) + 1)
    assert request(daemon, "reload")["lines"] == ["Nothing has changed."]
    # A second client wants one of its own.
    assert request(daemon, "reload")["ok"]
    assert daemon.stop() == 0
    assert count(daemon, "reload.started") == 3


def test_a_client_does_not_join_a_refusal_that_has_ended(launch: Launcher, database: str) -> None:
    """What the reload of a SIGHUP was refused for may have been mended outside of the file: it is tried again."""
    daemon = launch.ready(config(database))
    daemon.write(config(database, workers=MAIN + '[workers.late]\nrun = "late:work"\n'))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reload.rejected")
    (daemon.folder / "late.py").write_text("async def work(ctx):\n    await ctx.sleep(3600)\n")
    assert request(daemon, "reload")["lines"] == ["added: late"]
    # Where nothing was mended, the second attempt is refused as well.
    daemon.write("[supervisor\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_until(lambda: status(daemon)["reload"]["refused"] is not None, "the refusal")
    assert not request(daemon, "reload")["ok"]
    assert daemon.stop() == 0
    assert count(daemon, "reload.started") == 4


def test_a_client_that_comes_while_another_reloads_gets_its_own(launch: Launcher, database: str) -> None:
    """A client's reload begins after it asked, so that it sees what the client has written before."""
    daemon = launch.ready(config(database))
    _slow_reload(daemon, database)
    answers: list[dict[str, Any]] = []
    first = _in_thread(daemon, answers)
    _is_importing(daemon)
    daemon.write(config(database, workers=MAIN + OTHER))
    second = _in_thread(daemon, answers)
    status(daemon)
    (daemon.folder / "go").touch()
    first.join()
    second.join()
    assert sorted(answer["lines"] for answer in answers) == [["added: other", "removed: slow"], ["added: slow"]]
    assert daemon.stop() == 0


def test_a_stop_during_a_reload(launch: Launcher, database: str) -> None:
    """SIGTERM during a reload that hangs in an import ends the daemon with 0; the client gets an error."""
    daemon = launch.ready(config(database))
    _slow_reload(daemon, database)
    errors: list[str] = []

    def ask() -> None:
        done = daemon.run_command("reload")
        errors.append(f"{done.returncode} {done.stderr}")

    client = threading.Thread(target=ask)
    client.start()
    _is_importing(daemon)
    assert daemon.stop() == 0
    client.join()
    assert errors == ["1 the daemon is stopping\n"]
    assert not daemon.said("reload.applied")
    assert not daemon.said("library.logged")
    assert daemon.entries[-1]["event"] == "daemon.stopped"
    assert not daemon.said("daemon.failed")


def test_a_stop_overtakes_orders(launch: Launcher, database: str) -> None:
    """Orders that wait for a worker's end when SIGTERM comes are answered with an error, and exit with 1."""
    work = """
        async def work(ctx):
            import asyncio
            ctx.log.info("works")
            try:
                while not ctx.stopping:
                    await ctx.sleep(3600)
            finally:
                await asyncio.sleep(30)
    """
    daemon = launch.ready(config(database, supervisor='stop_timeout = "20s"'), work)
    daemon.wait_for("works")
    with contextlib.ExitStack() as stack:
        peers = []
        for order in ("restart", "restart", "pause", "resume"):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.settimeout(60.0)
            peer.connect(str(daemon.folder / "state" / "control.sock"))
            peer.sendall(json.dumps({"command": order, "worker": "main"}).encode() + b"\n")
            peers.append(peer)
        # Its answer comes after the orders were read: they came first.
        daemon.wait_until(lambda: worker_row(daemon)["state"] == "stopping", "the worker stops")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("daemon.stopping")
        daemon.signal(signal.SIGTERM)  # the worker would take its whole time
        answers = [json.loads(stack.enter_context(peer.makefile("rb")).readline()) for peer in peers]
    assert daemon.wait() == 0
    assert answers == [{"ok": False, "error": "the daemon is stopping"}] * 4
    assert not daemon.said("library.logged")


def test_every_applied_change_is_reported(launch: Launcher, database: str) -> None:
    """Values outside of the workers are named as well, in the answer and in the entry."""
    daemon = launch.ready(config(database))
    for number, (sections, keys) in enumerate(
        (
            ({"more": '[log]\nlevel = "debug"'}, "log.level"),
            ({"database": 'probe_interval = "7s"'}, "log.level, database.probe_interval"),
            ({"database": 'runtime = { max = "9s" }'}, "database.probe_interval, database.runtime.max"),
            ({"more": '[events]\nkeep = "30d"'}, "events.keep, database.runtime.max"),
            ({"supervisor": 'stall_warning = "3s"'}, "supervisor.stall_warning, events.keep"),
        )
    ):
        daemon.write(config(database, **sections))
        assert request(daemon, "reload")["lines"] == [f"changed: {keys}"]
        daemon.wait_until(lambda count=number: len(daemon.said("reload.applied")) > count, "the entry")  # type: ignore[misc]
        assert daemon.said("reload.applied")[-1]["changed"] == keys
    assert request(daemon, "reload")["lines"] == ["Nothing has changed."]


def test_changes_before_the_workers_start_are_reported(launch: Launcher, database: str) -> None:
    """A reload while the first connection is awaited says which workers it adds, changes and removes."""
    daemon = launch(config("postgresql://x@127.0.0.1:1/x", supervisor='ready = "started"', workers=MAIN + OTHER))
    daemon.wait_for("daemon.ready")
    third = OTHER.replace("other", "third")
    text = config(database, supervisor='ready = "started"', workers=MAIN + "settings = { a = 1 }\n" + third)
    daemon.write(text)
    answer = request(daemon, "reload")
    assert answer["lines"] == ["added: third", "changed: main, the database connection", "removed: other"]
    daemon.wait_for("worker.started", worker="third")
    assert daemon.stop() == 0
