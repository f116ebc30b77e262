"""The SQL schema in the life of a daemon: made by the first, looked at by the others, refused where it cannot serve."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import IDLE, config, request

from supervisor.database.schema.migrate import known_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

KNOWN = len(known_files())
SINGLETON = '[workers.main]\nrun = "workers:work"\nsingleton = true\n'
PROJECTION = '[workers.lists]\nkind = "projection"\nrun = "workers:project"\n'
PROJECT = """
    async def project(ctx, events):
        for event in events:
            await ctx.tx.execute("insert into list values ($1, $2)", event.position, event.data["who"])
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reason_of(daemon: Daemon) -> str:
    """Why it ended, in its own words."""
    return str(daemon.wait_for("daemon.stopping")["reason"])


def test_ten_daemons_in_one_instant_make_one_schema(launch: Launcher, postgres: Postgres) -> None:
    """Scenario 27: ten on an empty database are ready, one has made the schema, and the server saw no error of it."""
    daemons = [launch(config(postgres.dsn(), workers=SINGLETON), folder=f"node-{n}") for n in range(10)]
    for daemon in daemons:
        daemon.wait_for("daemon.ready", limit_s=60)
    assert [told["version"] for daemon in daemons for told in daemon.said("schema.applied")] == [KNOWN]
    assert postgres.execute("select count(*) from supervisor.migration") == str(KNOWN)
    assert postgres.execute("select count(*) from supervisor.node") == "10"
    for daemon in daemons:
        daemon.process.terminate()  # type: ignore[union-attr]  # they have been started
    assert [daemon.wait() for daemon in daemons] == [0] * 10
    errors = [line for line in postgres.log.read_text().splitlines() if "ERROR:" in line]
    assert [line for line in errors if 'relation "supervisor.migration" does not exist' not in line] == []


@pytest.mark.parametrize("workers", ["", SINGLETON], ids=["plain", "singleton"])
def test_only_looking_ends_with_78(launch: Launcher, database: str, workers: str) -> None:
    """`migrate = "check"` on an empty database says what to run, and systemd does not try again."""
    sections = {"workers": workers} if workers else {}
    daemon = launch(config(database, database='migrate = "check"', **sections))
    assert daemon.wait() == 78
    assert "run `pgsupervisor migrate`" in reason_of(daemon)
    assert daemon.run_command("migrate").returncode == 0
    daemon = launch.ready(config(database, database='migrate = "check"', **sections), folder="again")
    assert daemon.said("schema.applied") == []
    assert daemon.stop() == 0


def test_a_newer_schema_ends_with_78(launch: Launcher, database: str, shared_postgres: Postgres) -> None:
    """A daemon that is older than the schema names both versions and does not start."""
    daemon = launch.prepare(config(database))
    daemon.run_command("migrate")
    shared_postgres.execute(
        "insert into supervisor.migration (version) values (99)", dbname=database.rpartition("/")[2]
    )
    assert daemon.start().wait() == 78
    assert "has version 99" in reason_of(daemon)
    assert f"up to {KNOWN}" in reason_of(daemon)


def test_a_missing_privilege_concerns_those_who_need_the_schema(launch: Launcher, postgres: Postgres) -> None:
    """A singleton's daemon ends with 77 and the GRANTs; one without is ready, and says once what is not there."""
    postgres.add_user("app", "pw")
    dsn = postgres.dsn(user="app", password="pw")
    daemon = launch(config(dsn, workers=SINGLETON))
    assert daemon.wait() == 77
    assert "GRANT USAGE ON SCHEMA supervisor" in reason_of(daemon)
    assert "permission denied" in reason_of(daemon)
    plain = launch.ready(config(dsn), folder="plain")
    (told,) = plain.said("schema.absent")
    assert told["message"] == (
        "The SQL schema is not there: permission denied for database postgres (42501)."
        " No worker of this configuration needs it."
    )
    assert plain.stop() == 0


def test_a_daemon_that_does_not_own_the_schema_works_with_the_three_grants(
    launch: Launcher, postgres: Postgres
) -> None:
    """A projection, a singleton and `append` under a role with USAGE, SELECT and EXECUTE alone."""
    assert launch.prepare(config(postgres.dsn()), folder="owner").run_command("migrate").returncode == 0
    postgres.add_user("app", "pw")
    postgres.execute("""
        grant usage on schema supervisor to app;
        grant select on all tables in schema supervisor to app;
        grant execute on all functions in schema supervisor to app;
        create table list (position bigint, who text);
        grant insert on list to app;
    """)
    dsn = postgres.dsn(user="app", password="pw")
    daemon = launch.ready(config(dsn, workers=SINGLETON + PROJECTION), IDLE + PROJECT)
    daemon.wait_for("lease.acquired")
    done = daemon.run_command("append", "orders-1", "placed", '{"who": "Ada"}')
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    until(lambda: postgres.execute("select position, who from list") == "2|Ada")
    daemon.status()
    assert daemon.stop() == 0
    assert [entry for entry in daemon.entries if entry["level"] in {"error", "critical"}] == []
    errors = [line for line in postgres.log.read_text().splitlines() if "ERROR:" in line]
    assert errors == [line for line in errors if 'relation "supervisor.migration" does not exist' in line]


def test_an_event_is_appended_to_a_running_embedded_store(launch: Launcher) -> None:
    """The embedded store's daemon makes its schema, and `append` reaches it where it runs."""
    daemon = launch.ready('[supervisor]\n[database]\ndsn = "embedded:"\n[workers.main]\nrun = "workers:work"\n')
    assert [told["version"] for told in daemon.said("schema.applied")] == [KNOWN]
    done = daemon.run_command("append", "orders-1", "placed")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert daemon.stop() == 0
    done = daemon.run_command("append", "orders-1", "placed")
    assert done.returncode == 69
    assert "it runs only while its daemon does" in done.stderr


def test_a_reload_makes_the_schema_of_a_new_database(launch: Launcher, database: str, make_postgres: Any) -> None:
    """A new dsn brings its schema up to date before anything changes; one that cannot be refuses the reload."""
    daemon = launch.ready(config(database))
    other: Postgres = make_postgres()
    other.add_user("app", "pw")
    daemon.write(config(other.dsn(user="app", password="pw"), workers=SINGLETON))
    answer = request(daemon, "reload")
    assert not answer["ok"]
    assert "GRANT USAGE" in answer["error"]
    daemon.write(config(other.dsn(), workers=SINGLETON))
    answer = request(daemon, "reload")
    assert answer["ok"], answer
    assert len(daemon.said("schema.applied")) == 2
    daemon.wait_for("lease.acquired")
    assert daemon.stop() == 0
