"""`check`: every fault at once, nothing run, and an exit status that scripts can use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fake_server import http_server
from support.launching import IDLE, ONE_WORKER, config
from support.pgbouncer import pgbouncer

from supervisor.database.schema.version import migration_files

if TYPE_CHECKING:
    from support.launching import Launcher
    from support.postgres import Postgres

KNOWN = len(migration_files())
SINGLETON = ONE_WORKER + "singleton = true\n"


def test_says_that_all_is_well(launch: Launcher, database: str) -> None:
    """A good configuration ends with 0 and a sentence; `--connect` has asked the database too."""
    daemon = launch.prepare(config(database))
    done = daemon.run_command("check")
    assert (done.returncode, done.stdout) == (0, f"{daemon.config} is right: 1 worker\n")
    done = daemon.run_command("check", "--connect")
    text = f"is right: 1 worker, the database answers; `run` creates the SQL schema, version {KNOWN}"
    assert (done.returncode, done.stdout) == (0, f"{daemon.config} {text}\n")
    assert daemon.run_command("migrate").returncode == 0
    done = daemon.run_command("check", "--connect")
    assert (done.returncode, done.stdout) == (0, f"{daemon.config} is right: 1 worker, the database answers\n")


@pytest.mark.parametrize(("pool_max", "is_tight"), [(5, False), (4, True), (1, True)])
def test_remarks_on_a_pool_that_the_projections_use_up(
    launch: Launcher, database: str, pool_max: int, is_tight: bool
) -> None:
    """Who uses ctx.db beside ctx.tx may wait for a connection that the other shards have; no fault, but said."""
    view = """
[workers.view]
kind = "projection"
run = "workers:work"
shards = 4
"""
    code = """
    async def work(ctx, events):
        pass
"""
    daemon = launch.prepare(config(database, workers=view, database=f"pool_max = {pool_max}"), code)
    done = daemon.run_command("check")
    text = f"; the projections' 4 shards can have all connections of database.pool_max = {pool_max}: handlers that use"
    assert done.returncode == 0
    assert done.stdout.startswith(f"{daemon.config} is right: 1 worker{text if is_tight else chr(10)}")


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
    """Failing imports, objects that are no workers, and an unreachable server are reported together."""
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
        "workers.arguments.run", "takes (ctx)",
        "database.dsn", "127.0.0.1:1",
    ):  # fmt: skip
        assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_imports_the_workers_of_a_wrong_file_too(launch: Launcher) -> None:
    """One check reports the file's faults and every worker that cannot be imported, each once."""
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
    """A file that is not TOML is the only fault."""
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


def test_connect_checks_the_schema(launch: Launcher, database: str, shared_postgres: Postgres) -> None:
    """A schema with which `run` would end at once is a fault; one that it would bring up to date is a remark."""
    name = database.rpartition("/")[2]
    auto = launch.prepare(config(database, workers=SINGLETON))
    strict = launch.prepare(config(database, database='migrate = "check"', workers=SINGLETON), folder="strict")
    done = strict.run_command("check", "--connect")
    assert (done.returncode, "The SQL schema is not there" in done.stderr) == (78, True)
    assert auto.run_command("migrate").returncode == 0
    shared_postgres.execute(f"delete from supervisor.migration where version = {KNOWN}", dbname=name)
    done = auto.run_command("check", "--connect")
    assert (done.returncode, f"from version {KNOWN - 1} to {KNOWN}" in done.stdout) == (0, True)
    done = strict.run_command("check", "--connect")
    assert (done.returncode, f"has version {KNOWN - 1}, version {KNOWN} is needed" in done.stderr) == (78, True)
    shared_postgres.execute("insert into supervisor.migration values (99, now(), 99, '')", dbname=name)
    for daemon in (auto, strict):
        done = daemon.run_command("check", "--connect")
        assert (done.returncode, "has version 99" in done.stderr) == (78, True)


def test_connect_checks_the_privileges(launch: Launcher, postgres: Postgres) -> None:
    """What a role lacks is a fault where a worker needs it, and a remark where none does."""
    postgres.add_user("app", "pw")
    dsn = postgres.dsn(user="app", password="pw")
    plain, singleton = launch.prepare(config(dsn)), launch.prepare(config(dsn, workers=SINGLETON), folder="singleton")

    def outcome() -> tuple[str, str]:
        ok, wrong = plain.run_command("check", "--connect"), singleton.run_command("check", "--connect")
        assert (ok.returncode, wrong.returncode) == (0, 78), (ok.stderr, wrong.stdout)
        return ok.stdout, wrong.stderr

    remark, fault = outcome()
    assert "cannot create it, but no worker needs it" in remark
    assert "this role cannot create it here" in fault
    assert launch.prepare(config(postgres.dsn()), folder="owner").run_command("migrate").returncode == 0
    remark, fault = outcome()
    assert "no worker needs the SQL schema, which this role cannot use" in remark
    assert "GRANT USAGE ON SCHEMA supervisor" in fault
    postgres.execute("grant usage on schema supervisor to app; grant select on all tables in schema supervisor to app")
    _, fault = outcome()
    assert "the role needs EXECUTE on supervisor." in fault
    postgres.execute("grant execute on all functions in schema supervisor to app")
    assert singleton.run_command("check", "--connect").returncode == 0


def test_connect_finds_a_proxy_that_pools_transactions(launch: Launcher, postgres: Postgres) -> None:
    """Behind such a proxy leases cannot work: a fault, at every check, where a worker needs one."""
    with pgbouncer(postgres, "transaction") as dsn:
        plain, singleton = launch.prepare(config(dsn)), launch.prepare(config(dsn, workers=SINGLETON), folder="other")
        for _ in range(2):
            done = plain.run_command("check", "--connect")
            assert (done.returncode, done.stderr) == (0, "")
            done = singleton.run_command("check", "--connect")
            assert (done.returncode, "pools transactions" in done.stderr) == (78, True)
            assert done.stderr.count("database.dsn") == done.stderr.count(str(singleton.config)) == 1
