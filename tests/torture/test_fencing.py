"""The checker can fail: without the fence it finds the zombie that commits, and with it there is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.nodes import Nodes, several_nodes
from support.schema import connection
from torture.checker import check
from torture.history import History, Turn
from torture.ledger import Rows, create_ledger
from torture.run import WORKERS

if TYPE_CHECKING:
    from pathlib import Path

    from support.postgres import Postgres

CONFIG = """
[database]
dsn = "{dsn}"
[workers.beat]
run = "workers:hesitate"
singleton = true
backoff = { initial = "100ms", jitter = "none" }
"""
# What the first holder has sent to the server is done there whatever becomes of its process: it waits until the test
# lets it go on, then it writes and commits. Later holders do the same without waiting.
HESITATE = """
import asyncio

async def hesitate(ctx):
    lease = ctx.lease
    async with ctx.transaction() as connection:
        if lease.epoch == 1:
            await connection.execute(
                "do 'begin while not exists (select from open_gate) loop perform pg_sleep(0.02); end loop; end';"
                f"select torture.work('{lease.name}', {lease.epoch}, '{lease.incarnation}', '{NODE}');"
                "commit"
            )
        else:
            await connection.execute(
                "select torture.work($1, $2, $3, $4)", lease.name, lease.epoch, lease.incarnation, NODE
            )
    await asyncio.sleep(3600)
"""
NO_FENCE = """
create or replace function supervisor.fence(lease int, epoch bigint, incarnation uuid) returns xid8
language sql as 'select pg_current_xact_id()'
"""
HESITATES = "wait_event = 'PgSleep'"


@pytest.mark.parametrize("is_fenced", [True, False], ids=["with the fence", "without the fence"])
def test_a_zombie_commits_only_without_the_fence(postgres: Postgres, tmp_path: Path, *, is_fenced: bool) -> None:
    """A holder frozen within its transaction, whose lock is gone, commits under its old epoch, or does not."""
    asyncio.run(create_ledger(postgres.dsn()))
    postgres.execute("create table open_gate ()")
    if not is_fenced:
        postgres.execute(NO_FENCE)
    with several_nodes(tmp_path, postgres, 2, CONFIG, WORKERS + HESITATE) as nodes:
        _pass_on(nodes)
        postgres.execute("insert into open_gate default values")
        _resume(nodes)
    turns = asyncio.run(_turns(postgres))
    violations = check(History({}, turns=turns))
    # When the second one stops, the first may have the lease again.
    told = [(turn.is_take, turn.epoch) for turn in sorted(turns, key=lambda turn: turn.number) if turn.epoch < 3]
    taken_over = [(True, 1), (True, 2), (False, 2)]
    if is_fenced:
        assert told == taken_over
        assert violations == []
    else:
        assert told == [*taken_over, (False, 1)]
        (violation,) = violations
        assert violation.rule == "epoch"
        assert "committed under epoch 1" in violation.what


def _pass_on(nodes: Nodes) -> None:
    """Have the first node freeze within its transaction, and the second take its lease over and work."""
    for node in nodes:
        node.daemon.environ["TORTURE_NODE"] = node.name
    first, second = nodes
    first.start()
    nodes.wait_until(lambda: nodes.postgres.sessions(HESITATES), "the first holder does not begin")
    second.start()
    second.daemon.wait_for("daemon.ready")
    first.freeze()
    assert first.end_lock_session()
    nodes.wait_for_holder("beat", [second])
    worked = "select 1 from torture.turn where not is_take and epoch = 2"
    nodes.wait_until(lambda: nodes.postgres.execute(worked), "the new holder does not work")


def _resume(nodes: Nodes) -> None:
    """Wait for what the zombie's session does, then let its process go on too."""
    nodes.wait_until(lambda: nodes.postgres.sessions(HESITATES) == 0, "the zombie's session hesitates for ever")
    first, second = nodes
    first.thaw()
    first.daemon.wait_for("lease.lost")
    assert second.stop() == 0
    first.kill()


async def _turns(postgres: Postgres) -> list[Turn]:
    async with connection(postgres.dsn()) as connected:
        return await Rows(connected).turns()
