"""A singleton over real daemons: one of them runs it, the next one takes over, and nobody writes under an old lease."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.launching import config, request, status, worker_row
from support.pgbouncer import pgbouncer

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

# It says what it runs under and writes it down, fenced, again and again.
WORK = """
    runs = 0
    async def work(ctx):
        global runs
        runs += 1
        where = await ctx.db.fetchval("select current_database()")
        ctx.log.info(f"run {runs}", epoch=ctx.lease.epoch, where=where)
        while not ctx.stopping:
            async with ctx.transaction() as connection:
                await connection.execute("insert into effect values ($1)", ctx.lease.epoch)
            await ctx.sleep(0.02)
"""
DEAF = """
    import asyncio, contextlib
    async def work(ctx):
        ctx.log.info("run 1", epoch=ctx.lease.epoch)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
"""
SINGLETON = '[workers.main]\nrun = "workers:work"\nsingleton = true\n'
PLAIN = '[workers.other]\nrun = "workers:idle"\n'
IDLE = """
    async def idle(ctx):
        while not ctx.stopping:
            await ctx.sleep(3600)
"""


@pytest.fixture
def table(database: str, shared_postgres: Postgres) -> str:
    """The connection string of a database with a table for effects."""
    name = database.rpartition("/")[2]
    shared_postgres.execute("create table effect (epoch bigint, at timestamptz default clock_timestamp())", dbname=name)
    return database


def ask(postgres: Postgres, dsn: str, sql: str) -> str:
    """Return what a statement gives in a test's database."""
    return postgres.execute(sql, dbname=dsn.rpartition("/")[2])


def pair(launch: Launcher, text: str, workers: str = WORK) -> tuple[Daemon, Daemon]:
    """Start two daemons, the first of which holds the lease."""
    first = launch.ready(text, workers, folder="first")
    first.wait_for("run 1")
    second = launch.ready(text, workers, folder="second")
    second.wait_for("node.joined", nodes=1)
    return first, second


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_runs_it_and_the_next_takes_over(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """The second daemon stands by, in good health, and goes on within milliseconds when the first one stops."""
    first, second = pair(launch, config(table, workers=SINGLETON))
    until(lambda: worker_row(second)["leases"][0]["holder"] is not None)
    row = worker_row(second)
    assert (row["state"], status(second)["state"]) == ("standby", "running")
    assert row["leases"][0]["holder"]["pid"] == first.pid
    (held,) = worker_row(first)["leases"]
    assert (held["lease"], held["standing"], held["epoch"]) == ("main", "held", 1)
    assert first.stop() == 0
    assert second.wait_for("run 1")["epoch"] == 2
    gap = "select extract(epoch from min(at) filter (where epoch = 2) - max(at) filter (where epoch = 1)) from effect"
    until(lambda: ask(shared_postgres, table, "select 1 from effect where epoch = 2 limit 1"))
    assert 0 < float(ask(shared_postgres, table, gap)) < 2.0
    assert [entry["lease"] for entry in first.said("lease.released")] == ["main"]
    assert second.stop() == 0
    assert ask(shared_postgres, table, "select count(*) from supervisor.node") == "0"


def test_pausing_passes_it_on(launch: Launcher, table: str) -> None:
    """A paused singleton runs on the other daemon; resumed, it stands by."""
    first, second = pair(launch, config(table, workers=SINGLETON))
    assert request(first, "pause", worker="main")["ok"]
    assert second.wait_for("run 1")["epoch"] == 2
    assert worker_row(first)["state"] == "paused"
    assert request(first, "resume", worker="main")["ok"]
    first.wait_for("worker.unpaused")
    until(lambda: worker_row(first)["state"] == "standby")
    assert request(second, "restart", worker="main")["ok"]
    assert second.wait_for("run 2")["epoch"] == 2


def test_who_ignores_its_stop_ends_the_process(launch: Launcher, database: str) -> None:
    """A singleton that outlives the stop makes it end with 70, and the other daemon takes over."""
    stubborn = SINGLETON + 'stop_timeout = "100ms"\n'
    first, second = pair(launch, config(database, workers=stubborn), DEAF)
    first.signal(signal.SIGTERM)
    assert first.wait() == 70
    assert first.said("lease.overrun")[0]["worker"] == "main"
    assert first.said("worker.abandoned")
    assert not first.said("lease.released")
    assert not first.said("lease.lost")
    assert second.wait_for("run 1")["epoch"] == 2


def test_who_ignores_the_loss_ends_the_process(launch: Launcher, database: str, shared_postgres: Postgres) -> None:
    """When the session is terminated and the worker goes on, the process ends with 70 after its grace."""
    first, second = pair(launch, config(database, workers=SINGLETON + 'stop_timeout = "1h"\n'), DEAF)
    ask(
        shared_postgres,
        database,
        f"select pg_terminate_backend(h.pid) from supervisor.lock_holders h join supervisor.node n on n.id = h.id "
        f"where h.kind = 'node' and n.pid = {first.pid}",
    )
    assert first.wait() == 70
    assert first.said("lease.lost")[0]["lease"] == "main"
    assert first.said("lease.overrun")[0]["worker"] == "main"
    assert second.wait_for("run 1")["epoch"] == 2


def test_nothing_is_written_under_an_old_epoch(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """Once somebody else has bumped the epoch, `ctx.transaction()` is refused, and the worker stands anew."""
    daemon = launch.ready(config(table, workers=SINGLETON), WORK)
    assert daemon.wait_for("run 1")["epoch"] == 1
    bump = "update supervisor.lease set epoch = 7, incarnation = gen_random_uuid(), node_id = null"
    ask(shared_postgres, table, bump)
    assert daemon.wait_for("run 2")["epoch"] == 8
    assert daemon.said("lease.lost")[0]["lease"] == "main"
    assert not daemon.said("worker.failed")
    assert not daemon.said("library.logged")
    row = worker_row(daemon)
    assert (row["failures"], row["restarts"]) == (0, 0)
    until(lambda: ask(shared_postgres, table, "select 1 from effect where epoch = 8 limit 1"))
    assert ask(shared_postgres, table, "select array_agg(distinct epoch order by epoch) from effect") == "{1,8}"


MISUSES = {
    "commit": "await connection.execute('commit')",
    "commit and go on": "await connection.execute('commit'); await connection.execute('begin')",
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_ending_the_transaction_behind_its_back_is_an_error(launch: Launcher, table: str, misuse: str) -> None:
    """A worker that commits by itself hears of it."""
    work = f"""
        async def work(ctx):
            async with ctx.transaction() as connection:
                {misuse}
                await connection.execute("insert into effect values (0)")
    """
    daemon = launch.ready(config(table, workers=SINGLETON + 'restart = "never"\n'), work)
    failed = daemon.wait_for("worker.failed")
    assert failed["error_type"] == "supervisor.errors.TransactionMisused"
    assert "COMMIT" in failed["error"]


def test_idling_in_the_transaction_is_an_error_with_its_name(launch: Launcher, table: str) -> None:
    """A worker that waits for something else inside of `ctx.transaction()` hears why the server ended it."""
    work = """
        import asyncio
        async def work(ctx):
            async with ctx.transaction() as connection:
                await connection.execute("set local idle_in_transaction_session_timeout = '20ms'")
                while not connection.is_closed():
                    await asyncio.sleep(0.005)
                await connection.execute("insert into effect values (0)")
    """
    daemon = launch.ready(config(table, workers=SINGLETON + 'restart = "never"\n'), work)
    failed = daemon.wait_for("worker.failed")
    assert failed["error_type"] == "supervisor.errors.TransactionMisused"
    assert "for 60 s nothing was asked in it (25P03)" in failed["error"]


def test_what_a_singleton_sees_of_its_lease(launch: Launcher, database: str) -> None:
    """`ctx.lease` has name and epoch in a singleton and is None elsewhere; `ctx.tx` is a projection's."""
    work = """
        async def work(ctx):
            ctx.log.info("sees", lease=str(ctx.lease and (ctx.lease.name, ctx.lease.epoch)))
            try:
                ctx.tx
            except Exception as error:
                ctx.log.info("no tx", error=str(error))
            while not ctx.stopping:
                await ctx.sleep(3600)
    """
    daemon = launch.ready(config(database, workers=SINGLETON + '[workers.plain]\nrun = "workers:work"\n'), work)
    assert daemon.wait_for("sees", worker="main")["lease"] == "('main', 1)"
    assert daemon.wait_for("sees", worker="plain")["lease"] == "None"
    assert "ctx.transaction()" in daemon.wait_for("no tx", worker="main")["error"]


def test_a_restart_of_the_server_is_no_failure(launch: Launcher, postgres: Postgres) -> None:
    """A singleton is cut off when PostgreSQL restarts, told in one entry, and runs again under the next epoch."""
    postgres.execute("create table effect (epoch bigint)")
    daemon = launch.ready(config(postgres.dsn(), workers=SINGLETON), WORK)
    daemon.wait_for("run 1", epoch=1)
    postgres.restart("immediate")
    daemon.wait_for("run 2", epoch=2)
    assert len(daemon.said("lease.lost")) == 1
    assert not daemon.said("worker.failed")
    assert not daemon.said("workers.parked")
    row = worker_row(daemon)
    assert (row["failures"], row["restarts"], row["state"]) == (0, 0, "running")
    assert daemon.stop() == 0


def test_a_reload_adds_the_first_singleton(launch: Launcher, table: str) -> None:
    """A daemon without leases becomes a node by a reload; removing the singleton gives its lease back."""
    daemon = launch.ready(config(table, workers=PLAIN), IDLE + WORK)
    assert not daemon.said("node.joined")
    daemon.write(config(table, workers=PLAIN + SINGLETON))
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("run 1")["epoch"] == 1
    assert daemon.wait_for("node.joined")
    assert worker_row(daemon, "other")["runs"] == 1
    daemon.write(config(table, workers=PLAIN))
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("lease.released")["lease"] == "main"
    daemon.write(config(table, workers=PLAIN + SINGLETON))
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("run 2")["epoch"] == 2
    assert daemon.stop() == 0


def test_a_reload_removes_the_last_singleton(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """The daemon is no node any more: nobody sees it, it looks at nothing, and a lock of it is nowhere."""
    daemon = launch.ready(config(table, workers=PLAIN + SINGLETON), IDLE + WORK)
    daemon.wait_for("run 1")
    assert status(daemon)["nodes"]
    daemon.write(config(table, workers=PLAIN))
    assert request(daemon, "reload")["ok"]
    assert ask(shared_postgres, table, "select count(*) from supervisor.node") == "0"
    assert ask(shared_postgres, table, "select count(*) from supervisor.lock_holders") == "0"
    assert "nodes" not in status(daemon)
    daemon.write(config(table, workers=PLAIN + SINGLETON))
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("run 2")["epoch"] == 2
    assert [row["this"] for row in status(daemon)["nodes"]] == [True]
    assert not daemon.said("lease.lost")
    assert daemon.stop() == 0


def test_a_reload_without_leases_to_a_database_without_a_schema(
    launch: Launcher, table: str, postgres: Postgres
) -> None:
    """Whoever needs no lease there needs no schema: nothing is degraded."""
    postgres.add_user("app", "pw")
    postgres.execute("revoke create on database postgres from public; revoke create on schema public from public")
    daemon = launch.ready(config(table, workers=PLAIN + SINGLETON), IDLE + WORK)
    daemon.wait_for("run 1")
    daemon.write(config(postgres.dsn(user="app", password="pw"), workers=PLAIN))
    assert request(daemon, "reload")["ok"]
    daemon.wait_for("lease.released")
    shown = status(daemon)
    assert (shown["state"], shown.get("cluster")) == ("running", None)
    assert daemon.stop() == 0


def test_a_reload_that_cannot_have_leases_is_refused(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """Where the schema is missing and may not be made, the old configuration goes on, and so it does in an outage."""
    check = 'migrate = "check"'
    daemon = launch.ready(config(table, workers=PLAIN), IDLE + WORK)
    ask(shared_postgres, table, "drop schema supervisor cascade")
    daemon.write(config(table, workers=PLAIN + SINGLETON, database=check))
    answer = request(daemon, "reload")
    assert not answer["ok"]
    assert "pgsupervisor migrate" in answer["error"]
    assert [row["name"] for row in status(daemon)["workers"]] == ["other"]
    assert not daemon.said("node.joined")
    daemon.write(config(table, workers=PLAIN + SINGLETON))
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("run 1")["epoch"] == 1


def test_a_reload_to_another_database_moves_the_lease(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """The lease is given back on the old database, and the worker runs on the new one under a lease of that."""
    old = table.rpartition("/")[2]
    new = f"{old}_next"
    shared_postgres.execute(f"create database {new}")
    try:
        shared_postgres.execute("create table effect (epoch bigint)", dbname=new)
        daemon = launch.ready(config(table, workers=SINGLETON), WORK)
        assert daemon.wait_for("run 1")["where"] == old
        daemon.write(config(shared_postgres.dsn(dbname=new), workers=SINGLETON))
        assert request(daemon, "reload")["ok"]
        assert daemon.wait_for("run 2")["where"] == new
        assert [entry["lease"] for entry in daemon.said("lease.released")] == ["main"]
        assert not daemon.said("lease.lost")
        assert not daemon.said("worker.failed")
        assert ask(shared_postgres, table, "select node is null from supervisor.lease") == "t"
        holder = "select count(*) from supervisor.lock_holders where kind = 'lease'"
        assert shared_postgres.execute(holder, dbname=new) == "1"
        assert ask(shared_postgres, table, holder) == "0"
        assert daemon.stop() == 0
    finally:
        shared_postgres.execute(f"drop database {new} with (force)")


def test_a_new_pool_size_moves_the_lease_too(launch: Launcher, table: str) -> None:
    """New connections mean a new session: the worker goes on under the next epoch, without a loss."""
    daemon = launch.ready(config(table, workers=SINGLETON), WORK)
    daemon.wait_for("run 1", epoch=1)
    daemon.write(config(table, workers=SINGLETON, database="pool_max = 3"))
    assert request(daemon, "reload")["ok"]
    daemon.wait_for("run 2", epoch=2)
    assert not daemon.said("lease.lost")


TICKS = """
    runs = 0
    async def work(ctx):
        global runs
        runs += 1
        async with ctx.transaction() as connection:
            await connection.execute("insert into effect values ($1)", ctx.lease.epoch)
        ctx.log.info(f"run {runs}")
"""


def test_a_periodic_singleton_ticks_in_one_place(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """Two daemons tick as often as one; the second ticks on after the first."""
    periodic = SINGLETON + 'kind = "periodic"\nevery = "250ms"\n'
    first, second = pair(launch, config(table, workers=periodic), TICKS)
    first.wait_for("run 6")
    assert not second.said("run 1")
    assert first.stop() == 0
    second.wait_for("run 3")
    close = """
        select count(*) from (select at - lag(at) over (order by at) as gap from effect where epoch = 1) as gaps
        where gap < '100ms'
    """
    assert ask(shared_postgres, table, close) == "0"


def test_a_reload_in_an_outage_does_not_add_the_first_singleton(launch: Launcher, postgres: Postgres) -> None:
    """Nobody knows then whether leases can be had: the reload is refused, and works once the database is back."""
    postgres.execute("create table effect (epoch bigint)")
    daemon = launch.ready(config(postgres.dsn(), workers=PLAIN), IDLE + WORK)
    postgres.stop("immediate")
    daemon.wait_for("database.lost")
    daemon.write(config(postgres.dsn(), workers=PLAIN + SINGLETON))
    answer = request(daemon, "reload")
    assert not answer["ok"]
    assert "the database is unreachable" in answer["error"]
    postgres.start()
    daemon.wait_for("database.recovered")
    assert request(daemon, "reload")["ok"]
    assert daemon.wait_for("run 1")["epoch"] == 1


def test_a_reload_behind_a_pooling_proxy_adds_no_singleton(launch: Launcher, postgres: Postgres) -> None:
    """Through a proxy that pools transactions the first singleton is refused, and the plain workers run on."""
    postgres.execute("create table effect (epoch bigint)")
    with pgbouncer(postgres, "transaction") as dsn:
        daemon = launch.ready(config(dsn, workers=PLAIN), IDLE + WORK)
        daemon.write(config(dsn, workers=PLAIN + SINGLETON))
        answer = request(daemon, "reload")
        assert not answer["ok"]
        assert "pools transactions" in answer["error"]
        assert [row["state"] for row in status(daemon)["workers"]] == ["running"]
        assert not daemon.said("node.joined")
        assert daemon.stop() == 0


def test_a_reload_to_a_pooling_proxy_leaves_the_leases_where_they_are(launch: Launcher, postgres: Postgres) -> None:
    """A dsn behind which leases cannot work is refused as a whole, before anything changes."""
    postgres.execute("create table effect (epoch bigint)")
    daemon = launch.ready(config(postgres.dsn(), workers=SINGLETON), WORK)
    daemon.wait_for("run 1")
    with pgbouncer(postgres, "transaction") as dsn:
        daemon.write(config(dsn, workers=SINGLETON))
        until(lambda: "refuses connections" not in request(daemon, "reload")["error"])
        answer = request(daemon, "reload")
        assert not answer["ok"]
        assert "pools transactions" in answer["error"]
    (lease,) = worker_row(daemon)["leases"]
    assert (lease["standing"], lease["epoch"], worker_row(daemon)["runs"]) == ("held", 1, 1)


VIEW = '[workers.view]\nkind = "projection"\nrun = "workers:view"\nshards = 2\nrestart = "always"\n'
PROJECT = """
    async def view(ctx, events):
        for event in events:
            if event.type == "poison":
                raise ValueError("cannot apply it")
            await ctx.tx.execute("insert into effect values ($1)", event.position)
"""


def test_a_projection_goes_on_once_its_poison_is_skipped(
    launch: Launcher, table: str, shared_postgres: Postgres
) -> None:
    """A shard stands still at a poisoned event, degraded, and goes on by itself when that is skipped from outside."""
    daemon = launch.ready(config(table, workers=VIEW), PROJECT)
    append = "select supervisor.append('s', '{}')"
    ask(shared_postgres, table, append.format("poison"))
    daemon.wait_for("projection.poison")
    until(lambda: worker_row(daemon, "view")["state"] == "failed")
    row = worker_row(daemon, "view")
    assert (row["running"], row["failures"], status(daemon)["state"]) == (1, 1, "degraded")
    assert len(daemon.said("worker.failed")) == 0
    ask(shared_postgres, table, append.format("good"))
    ask(shared_postgres, table, "select supervisor.skip_poison('view')")
    until(lambda: ask(shared_postgres, table, "select count(*) from effect") == "1")
    until(lambda: worker_row(daemon, "view")["running"] == 2)
    assert (status(daemon)["state"], len(daemon.said("projection.poison"))) == ("running", 1)
    assert daemon.stop() == 0


def test_a_projection_begins_anew_on_another_database(launch: Launcher, table: str, shared_postgres: Postgres) -> None:
    """After a reload to another database a projection is laid out there and applies the events of that one."""
    new = f"{table.rpartition('/')[2]}_next"
    shared_postgres.execute(f"create database {new}")
    try:
        shared_postgres.execute("create table effect (epoch bigint)", dbname=new)
        daemon = launch.ready(config(table, workers=VIEW), PROJECT)
        append = "select supervisor.append('s', 't')"
        ask(shared_postgres, table, append)
        until(lambda: ask(shared_postgres, table, "select count(*) from effect") == "1")
        daemon.write(config(shared_postgres.dsn(dbname=new), workers=VIEW))
        assert request(daemon, "reload")["ok"]
        shared_postgres.execute(append, dbname=new)
        until(lambda: shared_postgres.execute("select count(*) from effect", dbname=new) == "1")
        assert not daemon.said("worker.failed")
        assert daemon.stop() == 0
    finally:
        shared_postgres.execute(f"drop database {new} with (force)")
