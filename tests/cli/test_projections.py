"""`projections list/reset/skip`: what they show and do, and exit statuses that scripts can use."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import config
from support.postgres import free_port
from support.schema import connection

if TYPE_CHECKING:
    import subprocess

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

VIEWS = """
[workers.orders-view]
kind = "projection"
run = "workers:work"
streams = ["orders-*"]
[workers.new-view]
kind = "projection"
run = "workers:work"
"""


@pytest.fixture
def command(launch: Launcher, database: str) -> Daemon:
    """A daemon that is not started, on a database with a schema, for its commands."""
    daemon = launch.prepare(config(database, workers=VIEWS))
    assert daemon.run_command("migrate").returncode == 0
    return daemon


@pytest.fixture
def sql(shared_postgres: Postgres, database: str) -> Any:
    """A way to say something to that database."""
    name = database.rpartition("/")[2]
    return lambda text: shared_postgres.execute(text, dbname=name)


def _lay_out(sql: Any, name: str = "orders-view", shards: int = 1) -> None:
    sql(f"select supervisor.reshard('{name}', {shards})")


def _outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).removesuffix("\n")


def test_list_shows_each_shard(command: Daemon, sql: Any) -> None:
    """Position, lag, what was applied, dead letters, and where one has stopped; also those of other daemons."""
    _lay_out(sql, shards=2)
    _lay_out(sql, "foreign")
    sql("select supervisor.append('orders-' || n % 4, 't') from generate_series(1, 40) n")
    sql("select supervisor.append('other', 't') from generate_series(1, 5)")
    sql("update supervisor.checkpoint set position = 46, applied = 7 where projection = 'orders-view' and shard = 0")
    sql(
        "update supervisor.checkpoint set poison = 9, error = 'ValueError: no'"
        " where projection <> 'foreign' and shard = 1"
    )
    sql("insert into supervisor.dead_letter values ('orders-view', 3, 's', 't', '{}', now(), 'e')")
    code, text = _outcome(command.run_command("projections", "list"))
    assert code == 0
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["PROJECTION", "SHARD", "POSITION", "LAG", "APPLIED", "DEAD", "STOPPED", "AT"]
    assert rows[1][:5] == ["foreign", "1/1", "0", "45", "events,"]
    assert text.splitlines()[1].endswith("not in this configuration")
    assert rows[2] == ["new-view", "never", "ran", "here"]
    assert rows[3] == ["orders-view", "1/2", "46", "0", "7", "1"]
    assert rows[4][:2] == ["2/2", "0"]
    assert text.splitlines()[4].endswith("9: ValueError: no")


def test_list_as_json(command: Daemon, sql: Any) -> None:
    """The same for programs; events of other streams are no lag."""
    _lay_out(sql)
    sql("select supervisor.append('orders-1', 't') from generate_series(1, 3)")
    sql("select supervisor.append('other', 't')")
    done = command.run_command("projections", "list", "--json")
    new, orders = json.loads(done.stdout)
    assert (new["name"], new["configured"], new["shards"]) == ("new-view", True, [])
    assert (orders["name"], orders["lag_events"], orders["dead_letters"]) == ("orders-view", 3, 0)
    assert orders["shards"][0]["lag_s"] >= 0


def test_reset_begins_again(command: Daemon, sql: Any) -> None:
    """From the start or after a position; what died after it is forgotten."""
    _lay_out(sql)
    sql("select supervisor.append('orders-1', 't') from generate_series(1, 9)")
    sql("update supervisor.checkpoint set position = 10, poison = 11")
    sql(
        "insert into supervisor.dead_letter"
        " select 'orders-view', n, 's', 't', '{}', now(), 'e' from generate_series(3, 6) n"
    )
    done = command.run_command("projections", "reset", "orders-view", "--to", "5")
    assert _outcome(done) == (0, "orders-view starts again after position 5")
    assert sql("select position, poison, applied from supervisor.checkpoint") == "5||0"
    assert sql("select string_agg(position::text, ',') from supervisor.dead_letter") == "3,4,5"
    assert _outcome(command.run_command("projections", "reset", "orders-view")) == (
        0, "orders-view starts again from the start",
    )  # fmt: skip
    assert sql("select position from supervisor.checkpoint") == "0"
    sql("delete from supervisor.event where position < 4")
    assert _outcome(command.run_command("projections", "reset", "orders-view")) == (
        0, "orders-view starts again from the start; the oldest event left is 4",
    )  # fmt: skip


def test_skip_leaves_out_where_it_stopped(command: Daemon, sql: Any) -> None:
    """Each shard that has stopped goes on after its event, which is kept among the dead letters."""
    _lay_out(sql, shards=2)
    sql("select supervisor.append('orders-1', 't') from generate_series(1, 9)")
    sql("update supervisor.checkpoint set poison = 4 + shard, error = 'ValueError: no'")
    done = command.run_command("projections", "skip", "orders-view")
    assert _outcome(done) == (
        0, "orders-view: skipped events 4, 5, now among its dead letters (supervisor.dead_letter)",
    )  # fmt: skip
    assert sql("select position, poison from supervisor.checkpoint order by shard") == "4|\n5|"
    assert sql("select distinct error from supervisor.dead_letter") == "skipped: ValueError: no"
    assert _outcome(command.run_command("projections", "skip", "orders-view")) == (
        1, "orders-view has not stopped at any event",
    )  # fmt: skip


async def nobody_holds(database: str) -> None:
    """Wait until the server has ended the sessions of former holders."""
    async with connection(database) as looking, asyncio.timeout(30):
        while await looking.fetchval("select count(*) from supervisor.lock_holders"):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.005)


async def test_forget_frees_what_it_held_back(command: Daemon, sql: Any, database: str) -> None:
    """A projection that no node runs is deleted with its dead letters; one that a live node runs stays."""
    _lay_out(sql)
    _lay_out(sql, "former", shards=2)
    sql("insert into supervisor.dead_letter values ('former', 3, 's', 't', '{}', now(), 'e')")
    sql("select id from supervisor.lease_ids('{former/2of2}')")
    held = "select pg_advisory_lock(1885827842, id) from supervisor.lease"
    joined = "select supervisor.join_node(null, 'n1@a:7', 'a', 7, '1', now(), '{1}')"
    for claim, by in ((held, "another session"), (joined, "n1@a:7")):
        async with connection(database) as holder:
            await holder.execute(claim)
            code, text = _outcome(command.run_command("projections", "forget", "former"))
            needed = f"the projection former is run by {by}: remove it from the configuration of that"
            assert (code, needed in text) == (1, True)
    assert sql("select count(*) from supervisor.checkpoint") == "3"
    await nobody_holds(database)
    assert _outcome(command.run_command("projections", "forget", "former")) == (
        0, "former is forgotten, with its checkpoint and its dead letters; it no longer keeps events from being pruned",
    )  # fmt: skip
    assert sql("select projection from supervisor.checkpoint") == "orders-view"
    assert sql("select count(*) from supervisor.dead_letter") == "0"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("skip", "order-view"), 1, "there is no projection order-view; did you mean orders-view?"),
        (("reset", "xyz"), 1, "there is no projection xyz; there are orders-view"),
        (("reset", "new-view"), 1, "new-view has never run on this database: there is nothing to change"),
        (("reset", "orders-view", "--to", "99"), 1, "lies between 0 and that of the last event, 1; this is 99"),
        (("reset", "orders-view", "--to", "-1"), 1, "this is -1"),
        (("reset", "orders-view", "--to", "x"), 64, "invalid int value: 'x'"),
        (("reset", "orders-view", "--to", "9" * 30), 1, "Nothing was changed"),
        (("reset",), 64, "the following arguments are required: NAME"),
        (("forget", "orders-view"), 1, "orders-view is in this configuration: first remove it there and reload"),
        (("forget", "order-view"), 1, "there is no projection order-view; did you mean orders-view?"),
        (("drop", "orders-view"), 64, "invalid choice: 'drop'"),
        (("skip", "a'b\"; --"), 1, "there is no projection a'b\"; --"),
        (("skip", ""), 1, "there is no projection "),
    ],
)
def test_what_cannot_be_done(command: Daemon, sql: Any, arguments: tuple[str, ...], code: int, said: str) -> None:
    """A refused command is one clear sentence, and nothing has changed."""
    _lay_out(sql)
    before = sql("select * from supervisor.checkpoint")
    done = command.run_command("projections", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert sql("select * from supervisor.checkpoint") == before


def test_a_database_without_a_schema_or_without_an_answer(launch: Launcher, database: str) -> None:
    """No schema: 78 and what to run; no server: 69."""
    bare = launch.prepare(config(database, workers=VIEWS), folder="bare")
    for action in (("list",), ("reset", "orders-view"), ("skip", "orders-view")):
        code, text = _outcome(bare.run_command("projections", *action))
        assert (code, text) == (78, "The SQL schema is missing or too old: run `pgsupervisor migrate`.")
    away = launch.prepare(config(f"postgresql://x@127.0.0.1:{free_port()}/x", workers=VIEWS), folder="away")
    assert away.run_command("projections", "list").returncode == 69


def test_no_projection_at_all(launch: Launcher, database: str) -> None:
    """A daemon without projections on an empty schema says so."""
    daemon = launch.prepare(config(database))
    daemon.run_command("migrate")
    assert _outcome(daemon.run_command("projections", "list")) == (0, "There are no projections.")
    assert _outcome(daemon.run_command("projections", "skip", "x")) == (
        1, "there is no projection x; there are no projections",
    )  # fmt: skip


def test_a_role_without_privileges(launch: Launcher, shared_postgres: Postgres, database: str, sql: Any) -> None:
    """77, and which privileges are missing."""
    launch.prepare(config(database), folder="owner").run_command("migrate")
    sql("drop role if exists nobody_much; create role nobody_much login password 'x'")
    dsn = shared_postgres.dsn(user="nobody_much", password="x", dbname=database.rpartition("/")[2])
    daemon = launch.prepare(config(dsn, workers=VIEWS), folder="guest")
    code, text = _outcome(daemon.run_command("projections", "list"))
    assert code == 77
    assert "GRANT USAGE ON SCHEMA supervisor" in text
