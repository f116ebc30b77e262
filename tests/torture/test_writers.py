"""The writers know what became of what they wrote."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from support.schema import connection, make_schema
from torture.checker import check
from torture.history import Event, History, Outcome
from torture.ledger import Rows
from torture.writers import APPLICATION, Writers

if TYPE_CHECKING:
    from support.postgres import Postgres

LIMIT_S = 20.0


def test_the_log_holds_what_the_writers_committed(postgres: Postgres) -> None:
    """Through ended sessions and restarts of the server, each writer's account agrees with the event log."""
    asyncio.run(make_schema(postgres.dsn()))
    writers = Writers(postgres.dsn(), count=8, seed=1)
    writers.start()
    modes: tuple[Literal["fast", "immediate"], ...] = ("fast", "immediate")
    for mode in modes:
        _wait_for_more(writers, Outcome.COMMITTED, 20)
        postgres.terminate(f"application_name = '{APPLICATION}'")
        _wait_for_more(writers, Outcome.ROLLED_BACK, 3)
        postgres.restart(mode)
    _wait_for_more(writers, Outcome.COMMITTED, 20)
    writers.stop()
    history = History({}, attempts=writers.attempts, events=asyncio.run(_events(postgres)))
    assert check(history) == []
    assert check(history._replace(events=history.events[1:])) != []


def _wait_for_more(writers: Writers, outcome: Outcome, count: int) -> None:
    before = len(writers.attempts)
    deadline_s = time.monotonic() + LIMIT_S
    while sum(attempt.outcome is outcome for attempt in writers.attempts[before:]) < count:
        writers.verify()
        assert time.monotonic() < deadline_s, f"the writers stand still: {writers.attempts[before:]}"
        time.sleep(0.01)


async def _events(postgres: Postgres) -> list[Event]:
    async with connection(postgres.dsn()) as connected:
        return await Rows(connected).events()
