"""An outage parks workers: it is neither a failure nor a restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from support.clock import settle
from support.workers import ScriptedWorker, SwitchedDatabase, running, service
from support.workers import periodic as periodic_spec

if TYPE_CHECKING:
    from supervisor.workers.context import Context


async def test_a_service_that_the_outage_ended_runs_again_when_it_is_over() -> None:
    """It is parked, counts nothing, logs nothing above debug, and runs again when the database is back."""

    async def query(_: Context) -> None:
        harness.database.go_down()
        raise ConnectionError("lost")

    worker = ScriptedWorker()
    async with running((service(), worker)) as harness:
        worker.script.append(query)
        await harness.supervisor.pause("mail")
        await settle()
        before = len(harness.events())
        await harness.supervisor.resume("mail")
        await settle()
        assert harness.state("mail") == "parked"
        await harness.clock.jump(3600.0)
        assert worker.runs == 2
        harness.database.come_back()
        await harness.clock.jump(0.05)
        assert worker.runs == 3
        row = harness.row("mail")
        assert (row["state"], row["restarts"], row["failures"]) == ("running", 0, 0)
        assert harness.events()[before:] == ["worker.unpaused"]


async def test_a_service_runs_on_during_an_outage() -> None:
    """A service that does not end is not touched."""
    worker = ScriptedWorker()
    async with running((service(), worker)) as harness:
        harness.database.go_down()
        await harness.clock.jump(600.0)
        harness.database.come_back()
        await harness.clock.jump(1.0)
        assert (worker.runs, harness.state("mail")) == (1, "running")


async def test_missed_ticks_become_one() -> None:
    """No tick begins during an outage; one comes after it, and then the usual distance."""
    worker = ScriptedWorker(*[None] * 100)
    async with running((periodic_spec(every_s=10.0), worker)) as harness:
        harness.database.go_down()
        await harness.clock.jump(95.0)
        assert (worker.runs, harness.state("tidy")) == (1, "parked")
        harness.database.come_back()
        await settle()
        assert worker.runs == 2
        await harness.clock.jump(9.9)
        assert worker.runs == 2
        await harness.clock.jump(0.2)
        assert worker.runs == 3


async def test_a_tick_that_the_outage_ended_runs_again_at_once() -> None:
    """The tick's work is not lost until the next one is due."""

    async def query(_: Context) -> None:
        harness.database.go_down()
        raise ConnectionError("lost")

    worker = ScriptedWorker(query, None)
    async with running((periodic_spec(every_s=3600.0, immediate=False), worker)) as harness:
        await harness.clock.jump(3600.0)
        assert harness.state("tidy") == "parked"
        await harness.clock.jump(60.0)
        harness.database.come_back()
        await harness.clock.jump(0.05)
        assert worker.runs == 2
        assert harness.row("tidy")["restarts"] == 0


async def test_errors_of_an_outage_that_is_over_do_not_spin() -> None:
    """A worker that ends at once, again and again, because of an outage that is over waits longer each time."""
    worker = ScriptedWorker(*[ConnectionError("still")] * 1000)
    async with running((service(), worker)) as harness:
        await harness.clock.jump(60.0)
        assert worker.runs < 25
        assert harness.row("mail")["restarts"] == 0


async def test_one_entry_for_all() -> None:
    """The outage and its end are one entry each, with counts, however many workers there are."""
    workers = [(service(f"w{n}"), ScriptedWorker()) for n in range(30)]
    async with running(*workers, (periodic_spec(), ScriptedWorker(None))) as harness:
        harness.said.clear()
        harness.database.go_down()
        harness.supervisor.on_database_down()
        harness.database.come_back()
        harness.supervisor.on_database_up()
        await harness.clock.jump(1.0)
        assert [(event, fields) for event, level, fields in harness.said if level >= 20] == [
            ("workers.parked", {"workers": 31, "service": 30, "periodic": 1}),
            ("workers.resumed", {"workers": 31, "service": 30, "periodic": 1}),
        ]


async def test_a_thousand_parked_workers_go_on_at_once() -> None:
    """All parked workers run again within the jitter of the first try."""
    database = SwitchedDatabase()

    async def query(_: Context) -> None:
        if not database.is_up:
            raise ConnectionError
        await asyncio.get_running_loop().create_future()

    async with running((service(replicas=1000), query), database=database) as harness:
        database.go_down()
        await harness.supervisor.restart("mail")
        await settle()
        assert harness.instances_by_state() == {"parked": 1000}
        harness.database.come_back()
        await harness.clock.jump(0.05)
        assert harness.instances_by_state() == {"running": 1000}
        assert harness.row("mail")["restarts"] == 0


async def test_a_tick_that_waits_for_the_database_does_not_stall() -> None:
    """The stall timeout does not count an outage, and begins anew when it is over."""

    async def wait(_: Context) -> None:
        await asyncio.get_running_loop().create_future()

    worker = ScriptedWorker(wait)
    async with running((periodic_spec(stall_timeout_s=10.0), worker)) as harness:
        await harness.clock.jump(5.0)
        harness.database.go_down()
        await harness.clock.jump(600.0)
        harness.database.come_back()
        harness.supervisor.on_database_up()
        await harness.clock.jump(9.0)
        assert harness.state("tidy") == "running"
        await harness.clock.jump(1.5)
        assert harness.state("tidy") == "waiting"
        assert harness.events().count("worker.stalled") == 1
