"""The SQL schema at a daemon's start: the first daemon creates it, the others check it, and some are refused."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import IDLE, config, request
from support.schema import KNOWN, make_schema, next_schema_folder

from supervisor.database.schema.grants import DAEMON_GRANTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

SINGLETON = '[workers.main]\nrun = "workers:work"\nsingleton = true\n'
PROJECTION = '[workers.lists]\nkind = "projection"\nrun = "workers:project"\n'
PROJECT = """
    async def project(ctx, events):
        for event in events:
            await ctx.tx.execute("insert into list values ($1, $2)", event.position, event.data["who"])
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reason_of(daemon: Daemon) -> str:
    """Return the reason that a daemon logged for its end."""
    return str(daemon.wait_for("daemon.stopping")["reason"])


def test_ten_daemons_that_start_together_create_one_schema(launch: Launcher, postgres: Postgres) -> None:
    """Scenario 27: ten daemons on an empty database become ready, one creates the schema, and no error is logged."""
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


def test_check_mode_without_a_schema_ends_with_78(launch: Launcher, database: str) -> None:
    """`migrate = "check"` on an empty database names the command to run, and systemd does not restart the daemon."""
    text = config(database, database='migrate = "check"', workers=SINGLETON)
    daemon = launch(text)
    assert daemon.wait() == 78
    assert "run `pgsupervisor migrate`" in reason_of(daemon)
    assert daemon.run_command("migrate").returncode == 0
    daemon = launch.ready(text, folder="again")
    assert daemon.said("schema.applied") == []
    assert daemon.stop() == 0


def test_services_run_without_a_usable_schema(launch: Launcher, postgres: Postgres) -> None:
    """Without a schema in check mode, or with one that excludes it, a daemon of services logs that and runs."""
    plain = config(postgres.dsn(), database='migrate = "check"')
    daemon = launch.ready(plain)
    done = daemon.run_command("check", "--connect")
    assert (done.returncode, "no worker needs the SQL schema" in done.stdout) == (0, True), done
    assert len(daemon.said("schema.absent")) == 1
    assert daemon.stop() == 0
    asyncio.run(make_schema(postgres.dsn()))
    postgres.execute("insert into supervisor.migration values (99, now(), 99, '')")
    daemon = launch.ready(plain, folder="newer")
    (told,) = daemon.said("schema.absent")
    assert "has version 99" in told["message"]
    done = daemon.run_command("check", "--connect")
    assert (done.returncode, "no worker needs the SQL schema" in done.stdout) == (0, True), done
    assert daemon.stop() == 0


def test_a_newer_schema_is_used_until_it_excludes_the_daemon(
    launch: Launcher, postgres: Postgres, make_postgres: Any, tmp_path: Path
) -> None:
    """With the documented grants alone: start, reload, `check` and `migrate` take a newer schema, or all refuse it."""
    postgres.add_user("app", "pw")
    other: Postgres = make_postgres()
    other.add_user("app", "pw")
    asyncio.run(make_schema(postgres.dsn()))
    postgres.execute("; ".join(f"{grant} TO app" for grant in DAEMON_GRANTS))
    folder = next_schema_folder(
        tmp_path,
        """
        create table supervisor.more (n int);
        create function supervisor.more() returns bigint
        language sql security definer set search_path = pg_catalog, pg_temp as 'select count(*) from supervisor.more';
        """,
    )
    for server in (postgres, other):
        asyncio.run(make_schema(server.dsn(), folder=folder))
    other.execute("; ".join(f"{grant} TO app" for grant in DAEMON_GRANTS))
    text = config(postgres.dsn(user="app", password="pw"), workers=SINGLETON)
    daemon = launch.ready(text)
    daemon.wait_for("lease.acquired")
    (told,) = daemon.said("schema.newer")
    assert told["message"] == (
        f"The SQL schema has version {KNOWN + 1}, newer than version {KNOWN} of this daemon, and lets it run."
    )
    done = daemon.run_command("check", "--connect")
    assert (done.returncode, f"has version {KNOWN + 1}, newer than version {KNOWN}" in done.stdout) == (0, True), done
    done = daemon.run_command("migrate")
    assert (done.returncode, f"has version {KNOWN + 1}, newer than version {KNOWN}" in done.stdout) == (0, True), done
    # Another version there: within a second an equal entry would only be counted.
    other.execute(f"insert into supervisor.migration values ({KNOWN + 2}, now(), {KNOWN}, '')")
    elsewhere = config(other.dsn(user="app", password="pw"), workers=SINGLETON)
    daemon.write(elsewhere)
    mark = daemon.mark
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("schema.newer", after=mark)["version"] == KNOWN + 2
    # From now on both exclude it: a daemon at work goes on, and nothing begins anew.
    for server in (postgres, other):
        server.execute("update supervisor.migration set oldest_daemon = version")
    daemon.write(text)
    answer = request(daemon, "reload")
    assert (answer["ok"], f"has version {KNOWN + 1}" in answer["error"]) == (False, True)
    for command in (("check", "--connect"), ("migrate",)):
        done = daemon.run_command(*command)
        assert (done.returncode, f"has version {KNOWN + 1}" in done.stderr) == (78, True), done
    assert daemon.stop() == 0
    late = launch(text, folder="late")
    assert late.wait() == 78
    assert f"has version {KNOWN + 1}, and this pgsupervisor knows versions up to {KNOWN}" in reason_of(late)
    assert f"daemons that know version {KNOWN + 1} or later" in reason_of(late)


def test_a_schema_of_an_earlier_checkout_ends_with_78(launch: Launcher, postgres: Postgres) -> None:
    """A schema that no release has made is refused by start, `check` and `migrate`, with what to do; doing it helps."""
    text = config(postgres.dsn(), workers=SINGLETON)
    daemon = launch.prepare(text)
    assert daemon.run_command("migrate").returncode == 0
    for change in (
        "update supervisor.migration set digest = ''",
        "alter table supervisor.migration drop column digest",
    ):
        postgres.execute(change)
        for command in (("check", "--connect"), ("migrate",)):
            done = daemon.run_command(*command)
            assert (done.returncode, "DROP SCHEMA supervisor CASCADE" in done.stderr) == (78, True), done
    assert daemon.start().wait() == 78
    assert "run `DROP SCHEMA supervisor CASCADE` in this database" in reason_of(daemon)
    postgres.execute("drop schema supervisor cascade")
    assert launch.ready(text, folder="again").stop() == 0


def test_a_missing_privilege_matters_if_a_worker_needs_the_schema(launch: Launcher, postgres: Postgres) -> None:
    """With a singleton the daemon ends with 77 and names the grants; without one it logs the missing schema once."""
    postgres.add_user("app", "pw")
    dsn = postgres.dsn(user="app", password="pw")
    daemon = launch(config(dsn, workers=SINGLETON))
    assert daemon.wait() == 77
    assert "GRANT USAGE ON SCHEMA supervisor" in reason_of(daemon)
    assert "permission denied" in reason_of(daemon)
    plain = launch.ready(config(dsn), folder="plain")
    (told,) = plain.said("schema.absent")
    assert told["message"] == (
        "The SQL schema cannot be used: permission denied for database postgres (42501)."
        " No worker of this configuration needs it."
    )
    assert plain.stop() == 0


def test_a_daemon_that_does_not_own_the_schema_works_with_the_three_grants(
    launch: Launcher, postgres: Postgres
) -> None:
    """A projection, a singleton and `append` under a role with USAGE, SELECT and EXECUTE alone."""
    assert launch.prepare(config(postgres.dsn()), folder="owner").run_command("migrate").returncode == 0
    postgres.add_user("app", "pw")
    postgres.execute("; ".join(f"{grant} TO app" for grant in DAEMON_GRANTS))
    postgres.execute("create table list (position bigint, who text); grant insert on list to app")
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
    """The daemon creates the schema of its embedded database, and `append` reaches it while it runs."""
    daemon = launch.ready('[supervisor]\n[database]\ndsn = "embedded:"\n[workers.main]\nrun = "workers:work"\n')
    assert [told["version"] for told in daemon.said("schema.applied")] == [KNOWN]
    done = daemon.run_command("append", "orders-1", "placed")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert daemon.stop() == 0
    done = daemon.run_command("append", "orders-1", "placed")
    assert done.returncode == 69
    assert "it runs only while its daemon does" in done.stderr


def test_a_reload_creates_the_schema_of_a_new_database(launch: Launcher, database: str, make_postgres: Any) -> None:
    """A reload to a new dsn migrates that database first, and is refused if it cannot."""
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


@pytest.mark.parametrize("remedy", ["no worker needs it", "it is only checked"])
def test_a_reload_heals_a_start_that_waits_for_the_schema(launch: Launcher, postgres: Postgres, remedy: str) -> None:
    """Each try looks at the configuration in force: the workers that need the schema, and `database.migrate`."""
    postgres.add_user("app", "pw")
    patient = 'startup = { retry_refused = true, attempts = 0, initial = "100ms", max = "200ms" }\n'
    plain = '[workers.plain]\nrun = "workers:work"\n'

    def text(workers: str, migrate: str = "auto") -> str:
        return config(
            postgres.dsn(user="app", password="pw"), supervisor='ready = "started"',
            database=f'migrate = "{migrate}"\n{patient}', workers=workers,
        )  # fmt: skip

    daemon = launch(text(plain + SINGLETON))
    daemon.wait_for("schema.waiting")
    if remedy == "no worker needs it":
        daemon.write(text(plain))
        assert request(daemon, "reload")["ok"]
        daemon.wait_for("schema.absent")
        daemon.wait_for("worker.started", worker="plain")
        assert daemon.stop() == 0
    else:
        daemon.write(text(plain + SINGLETON, migrate="check"))
        assert request(daemon, "reload")["ok"]
        assert daemon.wait() == 78
        assert "run `pgsupervisor migrate`" in reason_of(daemon)
