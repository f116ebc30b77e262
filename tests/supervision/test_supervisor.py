"""Orders for one worker, the reload, and what the supervisor reports of itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clock import settle
from support.workers import ScriptedWorker, forever, periodic, reload, running, service

from supervisor.supervision.instance import WorkerInstance
from supervisor.supervision.supervisor import UnknownWorker


async def test_pause_and_resume() -> None:
    """A paused worker ends its run and runs again only when it is resumed."""
    worker = ScriptedWorker()
    async with running((service(), worker)) as harness:
        await harness.supervisor.pause("mail")
        await harness.clock.jump(600.0)
        assert (harness.state("mail"), harness.row("mail")["wanted"], worker.runs) == ("paused", "paused", 1)
        await harness.supervisor.resume("mail")
        await settle()
        assert (harness.state("mail"), worker.runs) == ("running", 2)
        assert harness.events() == ["worker.started", "worker.stopped", "worker.paused", "worker.unpaused"]


async def test_a_pause_drops_the_ticks_that_it_missed() -> None:
    """After a pause the next tick comes when one is due anyway, not at once."""
    worker = ScriptedWorker(*[None] * 10)
    async with running((periodic(every_s=60.0), worker)) as harness:
        await harness.supervisor.pause("tidy")
        await harness.clock.jump(150.0)
        await harness.supervisor.resume("tidy")
        await settle()
        assert worker.runs == 1
        await harness.clock.jump(30.0)
        assert worker.runs == 2


@pytest.mark.parametrize("orders", ["pr", "prp", "prpr", "ppr", "rrp"])
async def test_the_last_order_counts(orders: str) -> None:
    """However quickly orders follow one another, the last one is what happens."""
    async with running((service(), ScriptedWorker())) as harness:
        for order in orders:
            await (harness.supervisor.pause if order == "p" else harness.supervisor.resume)("mail")
        await settle()
        assert harness.state("mail") == ("paused" if orders[-1] == "p" else "running")
        assert harness.row("mail")["restarts"] == 0


async def test_restart_starts_an_exhausted_worker() -> None:
    """It runs again with its whole allowance of restarts, and its counters go on."""
    worker = ScriptedWorker(ValueError, ValueError)
    async with running((service(max_restarts=1), worker)) as harness:
        await harness.clock.jump(1.0)
        assert harness.state("mail") == "exhausted"
        worker.script.append(ValueError)
        await harness.supervisor.restart("mail")
        await settle()
        assert (harness.state("mail"), harness.row("mail")["failures"]) == ("waiting", 3)
        await harness.clock.jump(1.0)
        assert harness.state("mail") == "running"


async def test_restarts_at_the_same_time_leave_one_instance() -> None:
    """Ten restarts at once end with one instance that runs."""
    running_now: list[int] = []

    async def count(_: Any) -> None:
        running_now.append(1)
        try:
            await forever()
        finally:
            running_now.pop()

    async with running((service(), count)) as harness:
        await asyncio.gather(*(harness.supervisor.restart("mail") for _ in range(10)))
        await settle()
        assert len(running_now) == 1
        assert harness.instances_by_state() == {"running": 1}


async def test_an_unknown_worker_is_answered_with_the_nearest() -> None:
    """The error for a typo in a worker's name has the name that was meant."""
    async with running((service("send-mail"), ScriptedWorker())) as harness:
        with pytest.raises(UnknownWorker, match="did you mean 'send-mail'"):
            await harness.supervisor.pause("sendmail")
        with pytest.raises(UnknownWorker, match=r"there is no worker 'zzz'$"):
            await harness.supervisor.restart("zzz")


async def test_a_reload_applies_the_difference_alone() -> None:
    """Removed workers end, changed ones are restarted, added ones start, and the others do not notice."""
    kept, changed, gone, new = (ScriptedWorker() for _ in range(4))
    old = [service("kept"), service("changed"), service("gone")]
    async with running(*zip(old, (kept, changed, gone), strict=True)) as harness:
        wanted = [service("kept"), service("changed", settings={"a": 1}), service("new")]
        await reload(harness, old, wanted, changed=changed, new=new)
        assert [row["name"] for row in harness.supervisor.status()] == ["kept", "changed", "new"]
        assert (kept.runs, changed.runs, gone.runs, new.runs) == (1, 2, 1, 1)
        assert changed.contexts[-1].settings == {"a": 1}


async def test_a_new_policy_restarts_nothing() -> None:
    """A worker of which only the policy has changed runs on under the new one."""
    worker = ScriptedWorker(ValueError)
    old, new = service(), service(stop_timeout_s=1.0)
    async with running((old, worker)) as harness:
        await reload(harness, [old], [new], mail=worker)
        assert worker.runs == 1
        assert next(harness.supervisor._instances()).spec is new


async def test_a_paused_worker_stays_paused_over_a_reload() -> None:
    """A reload that changes a paused worker does not let it run."""
    worker = ScriptedWorker()
    old, new = service(), service(settings={"a": 1})
    async with running((old, worker)) as harness:
        await harness.supervisor.pause("mail")
        await settle()
        await reload(harness, [old], [new], mail=worker)
        assert (harness.state("mail"), worker.runs) == ("paused", 1)
        await harness.supervisor.resume("mail")
        await settle()
        assert worker.runs == 2


async def test_a_slow_drain_does_not_hold_up_the_others() -> None:
    """Each changed worker starts anew when its own instances have ended."""
    slow, quick = ScriptedWorker(forever), ScriptedWorker()
    old = [periodic("slow", stop_timeout_s=20.0), service("quick")]
    new = [periodic("slow", stop_timeout_s=20.0, settings={"a": 1}), service("quick", settings={"a": 1})]
    async with running(*zip(old, (slow, quick), strict=True)) as harness:
        task = asyncio.get_running_loop().create_task(reload(harness, old, new, slow=slow, quick=quick))
        await settle()
        assert (quick.runs, slow.runs) == (2, 1)
        await harness.clock.jump(21.0)
        await task
        assert slow.runs == 2


async def test_fewer_and_more_replicas() -> None:
    """The number of instances follows the configuration."""
    worker = ScriptedWorker()
    three, one = service(replicas=3), service(replicas=1)
    async with running((three, worker)) as harness:
        await reload(harness, [three], [one], mail=worker)
        assert harness.instances_by_state() == {"running": 1}
        await reload(harness, [one], [three], mail=worker)
        assert harness.instances_by_state() == {"running": 3}


async def test_a_stop_during_a_reload_starts_nothing() -> None:
    """A worker that is drained for a reload when the daemon stops is not started again."""
    worker = ScriptedWorker(forever)
    old, new = periodic(stop_timeout_s=20.0), periodic(stop_timeout_s=20.0, settings={"a": 1})
    async with running((old, worker)) as harness:
        change = asyncio.get_running_loop().create_task(reload(harness, [old], [new], tidy=worker))
        await settle()
        stop = asyncio.get_running_loop().create_task(harness.supervisor.stop())
        await harness.clock.jump(30.0)
        assert await stop == []
        await change
        assert worker.runs == 1


async def test_the_status_is_json() -> None:
    """The status holds values for JSON alone, for every state."""
    workers = [
        (service("a"), ScriptedWorker()),
        (service("b"), ScriptedWorker(ValueError("x"))),
        (periodic("c"), ScriptedWorker(None)),
        (service("d", restart="never"), ScriptedWorker(None)),
    ]
    async with running(*workers) as harness:
        rows = json.loads(json.dumps(harness.supervisor.status()))
        assert [row["state"] for row in rows] == ["running", "waiting", "scheduled", "finished"]
        assert rows[2]["next_run"] == "2026-01-01T00:00:30.000+00:00"
        assert rows[1]["next_run"] == "2026-01-01T00:00:01.000+00:00"
        assert rows[1]["last_error"] == "ValueError: x"


async def test_healthy_in_every_ordinary_state() -> None:
    """Long waits, outages and pauses are healthy."""
    workers = [
        (service("a"), ScriptedWorker()),
        (periodic("b"), ScriptedWorker()),
        (periodic("c"), ScriptedWorker(None)),
    ]
    async with running(*workers) as harness:
        harness.database.go_down()
        await harness.supervisor.pause("a")
        for _ in range(100):
            await harness.clock.jump(10.0)
            assert harness.supervisor.is_healthy()


async def test_a_stuck_periodic_worker_is_woken_and_else_unhealthy() -> None:
    """A tick that is long overdue is noticed: the instance is woken; if that does not help, nothing is healthy."""
    worker = ScriptedWorker(*[None] * 10)
    async with running((periodic(every_s=10.0), worker)) as harness:
        # The one timer dies, as a fault of ours would make it.
        harness.supervisor._timers.close()
        await harness.clock.jump(60.0)
        assert worker.runs == 1
        assert harness.supervisor.is_healthy()
        await settle()
        assert worker.runs == 2
        # And now not even waking it helps: its task is gone.
        next(iter(harness.supervisor._groups.values())).tasks[0].cancel()
        await harness.clock.jump(1.0)
        assert harness.supervisor.is_healthy()
        await harness.clock.jump(31.0)
        assert not harness.supervisor.is_healthy()


async def test_an_instance_that_crashes_by_our_fault_is_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of an instance's task is logged and its worker runs again; one that stays makes supervision unhealthy."""
    failures = [RuntimeError("ours"), RuntimeError("ours")]
    run = WorkerInstance.run

    async def broken(self: WorkerInstance) -> None:
        if failures:
            raise failures.pop()
        await run(self)

    monkeypatch.setattr(WorkerInstance, "run", broken)
    worker = ScriptedWorker()
    async with running((service(), worker)) as harness:
        await harness.clock.jump(2.0)
        assert worker.runs == 1
        assert harness.events("daemon").count("daemon.failed") == 2
        assert harness.supervisor.is_healthy()
        failures.extend([RuntimeError("ours")] * 3)
        restart = asyncio.get_running_loop().create_task(harness.supervisor.restart("mail"))
        await harness.clock.jump(10.0)
        await restart
        assert not harness.supervisor.is_healthy()


async def test_ten_thousand_idle_workers() -> None:
    """Ten thousand workers start, pause, resume and stop."""
    specs = [service(f"w{n}") for n in range(10_000)]
    worker = ScriptedWorker()
    async with running(*((spec, worker) for spec in specs)) as harness:
        assert harness.instances_by_state() == {"running": 10_000}
        for spec in specs:
            await harness.supervisor.pause(spec.name)
        await settle()
        assert harness.instances_by_state() == {"paused": 10_000}
        for spec in specs:
            await harness.supervisor.resume(spec.name)
        await settle()
        assert harness.instances_by_state() == {"running": 10_000}
        assert await harness.supervisor.stop() == []
        assert len(harness.events()) < 100_000
