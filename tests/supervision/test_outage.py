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
        stage.database.go_down()
        raise ConnectionError("lost")

    worker = ScriptedWorker()
    async with running((service(), worker)) as stage:
        worker.script.append(query)
        await stage.supervisor.pause("mail")
        await settle()
        before = len(stage.events())
        await stage.supervisor.resume("mail")
        await settle()
        assert stage.state("mail") == "parked"
        await stage.clock.jump(3600.0)
        assert worker.runs == 2
        stage.database.come_back()
        await stage.clock.jump(0.05)
        assert worker.runs == 3
        row = stage.row("mail")
        assert (row["state"], row["restarts"], row["failures"]) == ("running", 0, 0)
        assert stage.events()[before:] == ["worker.unpaused"]


async def test_a_service_runs_on_during_an_outage() -> None:
    """A service that does not end is not touched."""
    worker = ScriptedWorker()
    async with running((service(), worker)) as stage:
        stage.database.go_down()
        await stage.clock.jump(600.0)
        stage.database.come_back()
        await stage.clock.jump(1.0)
        assert (worker.runs, stage.state("mail")) == (1, "running")


async def test_missed_ticks_become_one() -> None:
    """No tick begins during an outage; one comes after it, and then the usual distance."""
    worker = ScriptedWorker(*[None] * 100)
    async with running((periodic_spec(every_s=10.0), worker)) as stage:
        stage.database.go_down()
        await stage.clock.jump(95.0)
        assert (worker.runs, stage.state("tidy")) == (1, "parked")
        stage.database.come_back()
        await settle()
        assert worker.runs == 2
        await stage.clock.jump(9.9)
        assert worker.runs == 2
        await stage.clock.jump(0.2)
        assert worker.runs == 3


async def test_a_tick_that_the_outage_ended_runs_again_at_once() -> None:
    """The tick's work is not lost until the next one is due."""

    async def query(_: Context) -> None:
        stage.database.go_down()
        raise ConnectionError("lost")

    worker = ScriptedWorker(query, None)
    async with running((periodic_spec(every_s=3600.0, immediate=False), worker)) as stage:
        await stage.clock.jump(3600.0)
        assert stage.state("tidy") == "parked"
        await stage.clock.jump(60.0)
        stage.database.come_back()
        await stage.clock.jump(0.05)
        assert worker.runs == 2
        assert stage.row("tidy")["restarts"] == 0


async def test_errors_of_an_outage_that_is_over_do_not_spin() -> None:
    """A worker that ends at once, again and again, because of an outage that is over waits longer each time."""
    worker = ScriptedWorker(*[ConnectionError("still")] * 1000)
    async with running((service(), worker)) as stage:
        await stage.clock.jump(60.0)
        assert worker.runs < 25
        assert stage.row("mail")["restarts"] == 0


async def test_one_entry_for_all() -> None:
    """The outage and its end are one entry each, with counts, however many workers there are."""
    workers = [(service(f"w{n}"), ScriptedWorker()) for n in range(30)]
    async with running(*workers, (periodic_spec(), ScriptedWorker(None))) as stage:
        stage.said.clear()
        stage.database.go_down()
        stage.supervisor.on_database_down()
        stage.database.come_back()
        stage.supervisor.on_database_up()
        await stage.clock.jump(1.0)
        assert [(event, fields) for event, level, fields in stage.said if level >= 20] == [
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

    async with running((service(replicas=1000), query), database=database) as stage:
        database.go_down()
        await stage.supervisor.restart("mail")
        await settle()
        assert stage.instances_by_state() == {"parked": 1000}
        stage.database.come_back()
        await stage.clock.jump(0.05)
        assert stage.instances_by_state() == {"running": 1000}
        assert stage.row("mail")["restarts"] == 0


async def test_a_tick_that_waits_for_the_database_does_not_stall() -> None:
    """The stall timeout does not count an outage, and begins anew when it is over."""

    async def wait(_: Context) -> None:
        await asyncio.get_running_loop().create_future()

    worker = ScriptedWorker(wait)
    async with running((periodic_spec(stall_timeout_s=10.0), worker)) as stage:
        await stage.clock.jump(5.0)
        stage.database.go_down()
        await stage.clock.jump(600.0)
        stage.database.come_back()
        stage.supervisor.on_database_up()
        await stage.clock.jump(9.0)
        assert stage.state("tidy") == "running"
        await stage.clock.jump(1.5)
        assert stage.state("tidy") == "waiting"
        assert stage.events().count("worker.stalled") == 1
