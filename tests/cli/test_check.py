"""`check`: every fault at once, nothing run, and an exit status that scripts can use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.launching import IDLE, ONE_WORKER, config
from support.stand_in import http_server

if TYPE_CHECKING:
    from support.launching import Launcher
    from support.postgres import Postgres


def test_says_that_all_is_well(launch: Launcher, database: str) -> None:
    """A good configuration ends with 0 and a sentence; `--connect` has asked the database too."""
    daemon = launch.prepare(config(database))
    done = daemon.run_command("check")
    assert (done.returncode, done.stdout) == (0, f"{daemon.config} is right: 1 worker\n")
    done = daemon.run_command("check", "--connect")
    assert (done.returncode, done.stdout) == (0, f"{daemon.config} is right: 1 worker, the database answers\n")


def test_prints_every_fault_of_the_file_at_once(launch: Launcher) -> None:
    """All that is wrong with the file, with key paths and the nearest key, and 78."""
    text = """
        [supervisor]
        stop_timout = "3s"
        [database]
        dsn = 7
        pool_max = "many"
        [workers.Bad]
        run = "workers:work"
        [workers.main]
        run = "no colon"
    """
    done = launch.prepare(text).run_command("check")
    assert done.returncode == 78
    for said in (
        "supervisor.stop_timout", "stop_timeout", "database.dsn", "database.pool_max", "workers.Bad",
        "workers.main.run",
    ):  # fmt: skip
        assert said in done.stderr
    assert len(done.stderr.splitlines()) == 5
    assert "Traceback" not in done.stderr


def test_prints_every_worker_that_cannot_be_loaded_and_the_database_too(launch: Launcher) -> None:
    """Failing imports, things that are no workers, and a server that is not there are told together."""
    workers = """
        import broken_import_here
    """
    text = config("postgresql://x@127.0.0.1:1/x", workers="".join(
        f'[workers.{name}]\nrun = "{run}"\n'
        for name, run in (("absent", "absent:work"), ("broken", "workers:work"), ("plain", "things:plain"),
                          ("number", "things:number"), ("gone", "things:gone"), ("arguments", "things:arguments"))
    ))  # fmt: skip
    daemon = launch.prepare(text, workers)
    (daemon.folder / "things.py").write_text(
        "number = 7\ndef plain(ctx): ...\nasync def arguments(): ...\nasync def gones(ctx): ...\n"
    )
    done = daemon.run_command("check", "--connect")
    assert done.returncode == 78
    for said in (
        "workers.absent.run", "there is no module 'absent'",
        "workers.broken.run", "broken_import_here",
        "workers.plain.run", "a plain function",
        "workers.number.run", "of type 'int'",
        "workers.gone.run", "did you mean 'gones'",
        "workers.arguments.run", "takes one argument",
        "database.dsn", "127.0.0.1:1",
    ):  # fmt: skip
        assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_imports_the_workers_of_a_wrong_file_too(launch: Launcher) -> None:
    """One look shows the file's faults and every worker that cannot be imported, each once."""
    text = """
        [supervisor]
        stop_timout = "3s"
        [database]
        dsn = 7
        [workers.bad]
        run = "no colon"
        kind = "periodic"
        [workers.kindless]
        run = "absent:work"
        kind = "nonsense"
        [workers.good]
        run = "things:work"
        restart = "sometimes"
        [workers.gone]
        run = "things:gone"
    """
    daemon = launch.prepare(text)
    # Found by python_path alone.
    (daemon.folder / "things.py").write_text("async def work(ctx): ...\n")
    done = daemon.run_command("check")
    assert done.returncode == 78
    faults = [line.removeprefix(f"{daemon.config}: ").partition(":")[0] for line in done.stderr.splitlines()]
    assert faults == [
        "supervisor.stop_timout", "database.dsn", "workers.bad.run", "workers.bad", "workers.kindless.kind",
        "workers.good.restart", "workers.kindless.run", "workers.gone.run",
    ], done.stderr  # fmt: skip


def test_imports_nothing_when_the_file_is_no_toml(launch: Launcher) -> None:
    """A file that cannot be taken apart is the one fault there is."""
    daemon = launch.prepare('[workers.main]\nrun = "workers:work"\n[', 'raise RuntimeError("imported")\n')
    done = daemon.run_command("check")
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert "is not valid TOML" in done.stderr


@pytest.mark.parametrize("kind", ["nothing listens", "no PostgreSQL", "wrong password", "absent database"])
def test_connect_says_why_not(launch: Launcher, shared_postgres: Postgres, kind: str) -> None:
    """`--connect` names what is wrong with the connection, ends with 78 and shows no password."""
    with http_server() as other:
        shared_postgres.execute("drop role if exists checker")
        shared_postgres.add_user("checker", "right-secret")
        dsn = {
            "nothing listens": "postgresql://x:wrong-secret@127.0.0.1:1/x",
            "no PostgreSQL": f"postgresql://x:wrong-secret@127.0.0.1:{other.port}/x",
            "wrong password": shared_postgres.dsn(user="checker", password="wrong-secret"),
            "absent database": shared_postgres.dsn(dbname="absent"),
        }[kind]
        done = launch.prepare(config(dsn, database='connect_timeout = "2s"')).run_command("check", "--connect")
    assert done.returncode == 78
    assert "database.dsn" in done.stderr
    assert "wrong-secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_does_not_run_or_touch_anything(launch: Launcher) -> None:
    """A check of an embedded store starts no server and makes no state directory."""
    daemon = launch.prepare(f'[supervisor]\n[database]\ndsn = "embedded:"\n{ONE_WORKER}', IDLE)
    for extra in ((), ("--connect",)):
        done = daemon.run_command("check", *extra)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("1 worker, the embedded PostgreSQL is installed\n")
    assert not (daemon.folder / "state").exists()
