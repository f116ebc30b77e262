"""What the run's own tables note, on a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from support.schema import connection
from torture.history import Applied, Mark
from torture.ledger import Rows, create_ledger, read_marks

if TYPE_CHECKING:
    from pathlib import Path

WORK = "select torture.work('beat', $1, $2, 'a@host:1')"
SOME = uuid4()


async def take(connected: Any, name: str, incarnation: UUID = SOME) -> int:
    """Take a lease as a node does."""
    lease = await connected.fetchval("select id from supervisor.lease_ids(array[$1])", name)
    await connected.execute("select supervisor.try_lease_locks(array[$1]::int[])", lease)
    acquired = "array[$1]::int[], array[$3], pg_backend_pid(), 1, 'a@host:1', $2"
    epoch = f"select epoch from supervisor.advance_epochs({acquired})"
    return int(await connected.fetchval(epoch, lease, incarnation, name))


async def test_take_overs_and_work_are_numbered_together(database: str) -> None:
    """One counter for each lease numbers its take-overs and its work, in the order of the commits."""
    await create_ledger(database)
    async with connection(database) as one:
        assert await take(one, "beat") == 1
        await one.execute(WORK, 1, SOME)
        assert await take(one, "beat") == 2
        await one.execute(WORK, 1, SOME)
        assert await take(one, "tick") == 1
        turns = [turn._replace(at_s=0.0) for turn in await Rows(one).turns()]
    assert [(turn.lease, turn.number, turn.is_take, turn.epoch) for turn in turns] == [
        ("beat", 1, True, 1),
        ("beat", 2, False, 1),
        ("beat", 3, True, 2),
        ("beat", 4, False, 1),
        ("tick", 1, True, 1),
    ]
    assert {(turn.incarnation, turn.node) for turn in turns} == {(str(SOME), "a@host:1")}


async def test_the_counter_is_held_to_the_end(database: str) -> None:
    """Who draws a number later commits later, and what is rolled back leaves no gap."""
    await create_ledger(database)
    async with connection(database) as one, connection(database) as other:
        begun = one.transaction()
        await begun.start()
        assert await one.fetchval(WORK, 1, SOME) == 1
        later = asyncio.get_running_loop().create_task(other.fetchval(WORK, 2, SOME))
        waits = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
        async with asyncio.timeout(10):
            while not await one.fetchval(waits, other.get_server_pid()):  # noqa: ASYNC110 - a server has no events
                await asyncio.sleep(0.01)
        await begun.rollback()
        assert await later == 1
        assert [turn.epoch for turn in await Rows(one).turns()] == [2]


async def test_a_batch_is_noted_in_the_order_in_which_it_was_given(database: str) -> None:
    """Each event has its place in its stream, over batches, and one turn for all of a batch."""
    await create_ledger(database)
    apply = "select torture.apply('p', 1, $1, 'a@host:1', 'p', $2, $3, $4)"
    async with connection(database) as one:
        await one.execute(apply, SOME, ["s", "t", "s"], [1, 2, 3], ["u1", "u2", "u3"])
        await one.execute(apply, SOME, ["s", "s", "t"], [6, 5, 4], ["u6", "u5", "u4"])
        rows = sorted(await Rows(one).applied(), key=lambda row: row.position)
    assert rows == [
        Applied("p", 1, "p", "s", 1, 1, "u1"),
        Applied("p", 1, "p", "t", 1, 2, "u2"),
        Applied("p", 1, "p", "s", 2, 3, "u3"),
        Applied("p", 2, "p", "t", 2, 4, "u4"),
        Applied("p", 2, "p", "s", 4, 5, "u5"),
        Applied("p", 2, "p", "s", 3, 6, "u6"),
    ]


@pytest.mark.parametrize("rest", ["", "lamp 2 a@h"], ids=["whole", "cut short by a kill"])
def test_reads_marks(tmp_path: Path, rest: str) -> None:
    """A line is a mark; one that its writer was killed in is none; a node that never held has no file."""
    (tmp_path / "n1.marks").write_text(f"lamp 1 a@host:1 12.5\n{rest}")
    assert read_marks([tmp_path / "n1.marks", tmp_path / "n2.marks"]) == [Mark("lamp", 1, "a@host:1", 12.5)]
