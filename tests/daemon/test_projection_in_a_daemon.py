"""Projections in whole daemons: woken, stopped, poisoned and revived, moved from node to node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from support.launching import config

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

LIMIT_S = 30.0
VIEW = """
[workers.view]
kind = "projection"
run = "workers:work"
"""
WORK = """
    async def work(ctx, events):
        await ctx.tx.executemany(
            "insert into seen (position, stream, epoch) values ($1, $2, $3)",
            [(event.position, event.stream, ctx.lease.epoch) for event in events],
        )
        for event in events:
            if event.type == "bad":
                raise ValueError("it is bad")
"""


@pytest.fixture
def sql(shared_postgres: Postgres, database: str) -> Callable[[str], str]:
    """A way to say something to the test's database, which has a table for what was seen."""
    name = database.rpartition("/")[2]
    shared_postgres.execute(
        "create table seen (id bigserial primary key, position bigint, stream text, epoch bigint)", dbname=name
    )
    return lambda text: shared_postgres.execute(text, dbname=name)


def _until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


def _applied(sql: Callable[[str], str]) -> None:
    """Wait until every event has been applied, each once and in order."""
    events = "(select count(*) from supervisor.event where type <> 'bad')"
    _until(lambda: sql(f"select (select count(*) from seen) >= {events}") == "t", "not everything was applied")
    assert sql("select coalesce(string_agg(position::text, ' ' order by id), '') from seen") == sql(
        "select coalesce(string_agg(position::text, ' ' order by position), '') from supervisor.event"
        " where type <> 'bad'"
    )


def test_is_applied_soon_after_the_append(launch: Launcher, database: str, sql: Callable[[str], str]) -> None:
    """A daemon with a projection and no other worker: events from the shell and from SQL are applied, and shown."""
    daemon = launch.ready(config(database, workers=VIEW), WORK)
    assert daemon.run_command("append", "orders-1", "placed", '{"n": 1}').returncode == 0
    sql("select supervisor.append('s', 't') from generate_series(1, 1000)")
    _applied(sql)
    (view,) = daemon.status()["workers"]
    assert (view["kind"], view["state"]) == ("projection", "running")
    assert daemon.stop() == 0
    sql("select supervisor.append('s', 't')")
    daemon = launch.ready(config(database, workers=VIEW), WORK, folder="again")
    _applied(sql)


def test_a_poisoned_projection_is_revived_by_skip_and_reset(
    launch: Launcher, database: str, sql: Callable[[str], str]
) -> None:
    """It stops at the event, `skip` lets it go on after it without a restart, and so does `reset` from the start."""
    daemon = launch.ready(config(database, workers=VIEW), WORK)
    sql("select supervisor.append('s', case n when 5 then 'bad' else 't' end) from generate_series(1, 9) n")
    said = daemon.wait_for("projection.poison")
    assert said["position"] == 6
    assert said["message"].endswith(
        "halted at this event until the event is skipped, or the projection is reset or restarted."
    )
    daemon.wait_for("worker.stopped", worker="view")
    (view,) = daemon.status()["workers"]
    assert view["state"] == "failed"
    assert "it is bad" in view["last_error"]
    assert daemon.run_command("projections", "skip", "view").returncode == 0
    _applied(sql)
    sql("truncate seen")
    mark = daemon.mark
    assert daemon.run_command("projections", "reset", "view").returncode == 0
    daemon.wait_for("projection.poison", after=mark)
    daemon.wait_for("worker.stopped", after=mark, worker="view")
    assert daemon.run_command("projections", "skip", "view").returncode == 0
    _applied(sql)
    assert daemon.run_command("projections", "reset", "view", "--to", "8").returncode == 0
    _until(lambda: sql("select count(*) from seen") == "10", "the two last ones again")


def test_nodes_take_a_projection_over(launch: Launcher, database: str, sql: Callable[[str], str]) -> None:
    """One of two daemons is killed, the next stopped: each time the other goes on, and no event is lost or doubled."""
    text = config(database, workers=VIEW)
    first = launch.ready(text, WORK, folder="one")
    sql("select supervisor.append('s', 't') from generate_series(1, 100)")
    _applied(sql)
    second = launch.ready(text, WORK, folder="two")
    sql("select supervisor.append('s', 't') from generate_series(1, 100)")
    _applied(sql)
    first.kill()
    sql("select supervisor.append('s', 't') from generate_series(1, 100)")
    _applied(sql)
    launch.ready(text, WORK, folder="three")
    second.stop()
    sql("select supervisor.append('s', 't') from generate_series(1, 100)")
    _applied(sql)
    epochs = [int(line) for line in sql("select epoch from seen order by id").splitlines()]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 3


def test_the_number_of_shards_changes_by_a_reload(launch: Launcher, database: str, sql: Callable[[str], str]) -> None:
    """Two daemons, 1 shard, then 4, then 3, each reloaded in turn while events come in: nothing lost, nothing twice."""
    daemons = [launch.ready(config(database, workers=VIEW), WORK, folder=folder) for folder in ("one", "two")]
    number = iter(range(10_000))

    def append() -> None:
        for _ in range(5):
            sql(f"select supervisor.append('s' || n % 7, 't') from generate_series(1, {10 + next(number)}) n")

    append()
    for shards in (4, 3):
        for daemon in daemons:
            _reload(daemon, config(database, workers=f"{VIEW}shards = {shards}\n"))
            append()
    count = "select count(*), count(distinct position) from seen"
    events = "select count(*), count(*) from supervisor.event"
    _until(lambda: sql(count) == sql(events), f"{sql(count)} of {sql(events)}")
    disorder = (
        "select count(*) from"
        " (select position - lag(position) over (partition by stream order by id) as step from seen) s where step < 0"
    )
    assert sql(disorder) == "0"
    assert sql("select shards from supervisor.projection") == "3"
    assert sql("select string_agg(name, ' ' order by name) from supervisor.lease where node is not null") == (
        "view/1of3 view/2of3 view/3of3"
    )


def test_a_sharding_conflict_is_over_when_the_numbers_agree(
    launch: Launcher, database: str, sql: Callable[[str], str]
) -> None:
    """Another node takes its number of shards back and gets the lease; who stood aside can take it over then."""
    one, three = config(database, workers=VIEW), config(database, workers=f"{VIEW}shards = 3\n")
    first = launch.ready(one, WORK, folder="one")
    first.wait_for("lease.acquired")
    second = launch.ready(three, WORK, folder="two")
    first.wait_for("projection.sharding_conflict")
    said = first.wait_for("worker.stopped", worker="view")
    assert "a node with a newer configuration" in said["message"]
    assert first.status()["workers"][0]["state"] == "failed"
    _reload(second, one)
    sql("select supervisor.append('s', 't') from generate_series(1, 10)")
    _applied(sql)
    _until(lambda: first.status()["workers"][0]["state"] in ("standby", "running"), "it stands by again")
    assert len(first.said("projection.sharding_conflict")) == 1
    assert sql("select shards from supervisor.projection") == "1"
    second.kill()
    sql("select supervisor.append('s', 't') from generate_series(1, 10)")
    _applied(sql)


def test_a_restart_or_a_new_configuration_lays_out_again(
    launch: Launcher, database: str, sql: Callable[[str], str]
) -> None:
    """Who stood aside lays out by `restart`; and so does a projection that was removed and is added again."""
    other = f"{VIEW}shards = 3\n"
    service = """
[workers.rest]
kind = "service"
run = "workers:rest"
singleton = true
"""
    code = (
        WORK
        + """
    async def rest(ctx):
        while True:
            await ctx.sleep(9)
"""
    )
    first = launch.ready(config(database, workers=service + VIEW), code, folder="one")
    _until(lambda: sql("select count(*) from supervisor.projection") == "1", "the first one lays out")
    second = launch.ready(config(database, workers=other), WORK, folder="two")
    first.wait_for("projection.sharding_conflict")
    assert first.run_command("restart", "view").returncode == 0
    second.wait_for("projection.sharding_conflict", shards=1)
    sql("select supervisor.append('s' || n, 't') from generate_series(1, 10) n")
    _applied(sql)
    _reload(first, config(database, workers=service))
    assert second.run_command("restart", "view").returncode == 0
    _until(lambda: sql("select shards from supervisor.projection") == "3", "the other lays out")
    _reload(first, config(database, workers=service + VIEW))
    _until(lambda: sql("select shards from supervisor.projection") == "1", "it lays out again")
    sql("select supervisor.append('s' || n, 't') from generate_series(1, 10) n")
    _until(lambda: sql("select count(*), count(distinct position) from seen") == "20|20", "all of it once")


def _reload(daemon: Daemon, text: str) -> None:
    daemon.write(text)
    done = daemon.run_command("reload")
    assert done.returncode == 0, done.stderr
