"""A worker with a lease runs while this node holds it, and at no other time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import FakeClock, settle
from support.workers import (
    ScriptedWorker,
    SwitchedDatabase,
    ended,
    forever,
    periodic,
    projection,
    reload,
    running,
    service,
)

from supervisor.errors import LeaseLost, ProjectionHalted, ShardingConflict
from supervisor.leases.lease import LeaseStatus
from supervisor.supervision import instance as instance_module
from supervisor.supervision.instance import WorkerInstance
from supervisor.supervision.progress_check import is_stuck
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.workers import SupervisionHarness

    from supervisor.supervision.run import Run
    from supervisor.workers.context import Context

SINGLETON = service(singleton=True)


class IgnoresStop:
    """Ignores every cancellation until the test is over."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, _: Context) -> None:
        while not self.may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.may_end.wait()


@pytest.fixture
async def deaf() -> AsyncIterator[IgnoresStop]:
    """A worker's run that would not end."""
    run = IgnoresStop()
    yield run
    run.may_end.set()
    await settle()


async def watchful(ctx: Context) -> None:
    """Take five seconds more after the stop."""
    while not ctx.stopping:
        await ctx._clock.sleep(0.1)
    await ctx._clock.sleep(5.0)


async def give(harness: SupervisionHarness, name: str = "mail") -> None:
    """Let the node acquire a lease."""
    harness.leases[name].give()
    await settle()


async def test_a_singleton_waits_in_standby_until_its_lease_is_held() -> None:
    """A singleton requests its lease, waits without being unhealthy, and begins when the lease is held."""
    worker = ScriptedWorker()
    async with running((SINGLETON, worker)) as harness:
        await harness.clock.jump(3600.0)
        assert (harness.state("mail"), worker.runs, harness.events()) == ("standby", 0, [])
        assert harness.supervisor.unhealthy() == {}
        assert harness.leases["mail"].said == ["request"]
        await give(harness)
        assert (harness.state("mail"), worker.runs, harness.events()) == ("running", 1, ["worker.started"])
        lease = worker.contexts[0].lease
        assert lease is not None
        assert (lease.name, lease.epoch) == ("mail", 1)


async def test_a_revoked_lease_is_released_after_the_stop() -> None:
    """A worker whose lease is revoked may finish its work; the lease is given back when it has ended, not before."""
    worker = ScriptedWorker(watchful)
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        lease_handle = harness.leases["mail"]
        lease_handle.revoke()
        await harness.clock.jump(4.0)
        assert (harness.state("mail"), lease_handle.said) == ("stopping", ["request"])
        await harness.clock.jump(2.0)
        assert (harness.state("mail"), lease_handle.said) == ("standby", ["request", "worker_ended"])
        assert harness.row("mail")["failures"] == 0
        assert harness.events() == ["worker.started"]
        await give(harness)
        assert (harness.state("mail"), worker.runs) == ("running", 2)


async def test_a_lost_lease_ends_the_run_at_once() -> None:
    """What runs under a lost lease is cancelled without delay, although it watches its stop, and counts for nothing."""
    worker = ScriptedWorker(watchful)
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        harness.leases["mail"].lose()
        await settle()
        assert (harness.state("mail"), harness.leases["mail"].said) == ("standby", ["request", "worker_ended"])
        row = harness.row("mail")
        assert (row["restarts"], row["failures"], row["last_error"]) == (0, 0, None)
        assert harness.events() == ["worker.started"]


@pytest.mark.parametrize("error", [ValueError("cut off"), LeaseLost("it has passed on"), SystemExit(3)])
async def test_what_a_run_raises_under_a_lost_lease_counts_for_nothing(error: BaseException) -> None:
    """Neither a failure nor a restart follows, and nothing above debug is said."""

    async def fail(_: Context) -> None:
        try:
            await forever()
        finally:
            raise error

    async with running((SINGLETON, ScriptedWorker(fail))) as harness:
        await give(harness)
        harness.leases["mail"].lose()
        await settle()
        assert harness.row("mail")["failures"] == 0
        assert harness.events() == ["worker.started"]
        await give(harness)
        assert harness.state("mail") == "running"


async def test_a_refusal_by_the_database_is_a_loss() -> None:
    """An instance whose run ended because its fence was refused is in standby again, as after a lost lease."""

    async def refused(ctx: Context) -> None:
        assert ctx._lease_handle is not None
        ctx._lease_handle.report_lost("the epoch has passed on")
        raise LeaseLost("the epoch has passed on")

    async with running((SINGLETON, ScriptedWorker(refused))) as harness:
        await give(harness)
        assert (harness.state("mail"), harness.row("mail")["failures"]) == ("standby", 0)


async def test_a_loss_during_a_revocation_cuts_it_short() -> None:
    """A run that is being waited for is cancelled when its lease is lost meanwhile."""
    async with running((service(singleton=True, stop_timeout_s=30.0), ScriptedWorker(watchful))) as harness:
        await give(harness)
        harness.leases["mail"].revoke()
        await harness.clock.jump(1.0)
        assert harness.state("mail") == "stopping"
        harness.leases["mail"].lose()
        await settle()
        assert harness.state("mail") == "standby"


@pytest.mark.parametrize(("standing", "after_s"), [("lose", 2.0), ("revoke", 12.0)])
async def test_a_run_that_outlives_its_lease_is_reported(standing: str, after_s: float, deaf: IgnoresStop) -> None:
    """A run that ignores its stop is reported when its deadline and grace are over, and its lease is not given back."""
    async with running((service(singleton=True, stop_timeout_s=10.0), ScriptedWorker(deaf))) as harness:
        await give(harness)
        next(harness.supervisor._instances()).current_run.stop.is_cooperative = True  # type: ignore[union-attr]
        getattr(harness.leases["mail"], standing)()
        await harness.clock.jump(after_s - 0.1)
        assert harness.overruns == []
        await harness.clock.jump(0.2)
        assert harness.overruns[:1] == ["mail"]
        assert "worker.abandoned" in harness.events()
        assert harness.leases["mail"].said == ["request"]


async def test_an_abandoned_tick_is_reported_when_its_lease_is_lost(deaf: IgnoresStop) -> None:
    """A tick that would not end keeps the lease, and is reported only when that is lost."""
    spec = periodic(every_s=10.0, stall_timeout_s=5.0, singleton=True)
    async with running((spec, ScriptedWorker(deaf))) as harness:
        await give(harness, "tidy")
        await harness.clock.jump(60.0)
        assert (harness.state("tidy"), harness.overruns) == ("abandoned", [])
        harness.leases["tidy"].lose()
        await harness.clock.jump(3.0)
        assert harness.overruns == ["tidy"]
        assert harness.leases["tidy"].said == ["request"]


async def test_a_stalled_tick_that_ends_after_all_gives_the_lease_back(deaf: IgnoresStop) -> None:
    """A revoked lease is given back when the abandoned run has ended."""
    spec = periodic(every_s=10.0, stall_timeout_s=5.0, singleton=True)
    async with running((spec, ScriptedWorker(deaf))) as harness:
        await give(harness, "tidy")
        await harness.clock.jump(60.0)
        harness.leases["tidy"].revoke()
        await harness.clock.jump(1.0)
        deaf.may_end.set()
        await harness.clock.jump(0.5)
        assert (harness.state("tidy"), harness.overruns) == ("standby", [])
        assert harness.leases["tidy"].said == ["request", "worker_ended"]


async def test_pausing_lets_the_lease_go() -> None:
    """A paused singleton declines its lease, so that another node runs it, and requests it again when it is resumed."""
    worker = ScriptedWorker()
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        await harness.supervisor.pause("mail")
        await settle()
        lease_handle = harness.leases["mail"]
        assert (harness.state("mail"), lease_handle.said) == ("paused", ["request", "decline", "worker_ended"])
        await harness.supervisor.resume("mail")
        await settle()
        assert (harness.state("mail"), lease_handle.said[3:]) == ("standby", ["request"])


async def test_an_instance_in_standby_can_be_paused_and_stopped() -> None:
    """Orders reach a worker that waits for its lease."""
    async with running((SINGLETON, ScriptedWorker())) as harness:
        await harness.supervisor.pause("mail")
        await settle()
        assert (harness.state("mail"), harness.leases["mail"].said) == ("paused", ["request", "decline"])
        await harness.supervisor.resume("mail")
        await settle()
        assert await harness.supervisor.stop() == []
        assert (harness.state("mail"), harness.leases["mail"].said[-1]) == ("stopped", "decline")


async def test_a_stop_gives_the_lease_back_once_the_worker_has_ended() -> None:
    """The lease of a worker goes as soon as that has ended, while others are still waited for."""
    async with running((SINGLETON, ScriptedWorker()), (service("slow"), ScriptedWorker(watchful))) as harness:
        await give(harness)
        stop = asyncio.get_running_loop().create_task(harness.supervisor.stop())
        await settle()
        assert harness.leases["mail"].said == ["request", "decline", "worker_ended"]
        assert not stop.done()
        await harness.clock.jump(10.0)
        assert await stop == []


async def test_a_stop_returns_the_workers_whose_leases_cannot_be_given_back(deaf: IgnoresStop) -> None:
    """A singleton that ignores the daemon's stop is named once the others have ended; its lease stays."""
    async with running((SINGLETON, ScriptedWorker(deaf))) as harness:
        await give(harness)
        assert await ended(harness.supervisor.stop(), harness.clock) == ["mail"]
        assert harness.supervisor.holding_leases() == ["mail"]
        assert (harness.overruns, harness.leases["mail"].said) == ([], ["request", "decline"])


async def test_a_lease_lost_during_the_stop_is_reported_at_once(deaf: IgnoresStop) -> None:
    """While other workers are still waited for, an abandoned run may not go on without its lease."""
    slow = service("slow", stop_timeout_s=60.0)
    quick = service(singleton=True, stop_timeout_s=0.0)
    clock = FakeClock()

    async def linger(ctx: Context) -> None:
        while not ctx.stopping:
            await clock.sleep(0.1)
        await clock.sleep(50.0)

    async with running((quick, ScriptedWorker(deaf)), (slow, ScriptedWorker(linger)), clock=clock) as harness:
        await give(harness)
        stop = asyncio.get_running_loop().create_task(harness.supervisor.stop())
        await clock.jump(10.0)
        assert (harness.overruns, stop.done()) == ([], False)
        harness.leases["mail"].lose()
        await settle()
        assert harness.overruns == ["mail"]
        await clock.jump(100.0)
        assert await stop == ["mail"]


async def test_a_restart_keeps_the_lease() -> None:
    """A worker that is restarted goes on under the lease that it has."""
    worker = ScriptedWorker()
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        await harness.supervisor.restart("mail")
        await settle()
        assert (harness.state("mail"), worker.runs) == ("running", 2)
        assert harness.leases["mail"].said == ["request"]
        assert harness.leases["mail"].status is LeaseStatus.HELD


@pytest.mark.parametrize(
    ("script", "restart", "state"), [(None, "on-failure", "finished"), (ValueError("no"), "never", "failed")]
)
async def test_a_finished_worker_keeps_the_lease(script: object, restart: str, state: str) -> None:
    """A finished worker holds on to its lease, also when another node asks for it, and never runs again."""
    worker = ScriptedWorker(script)
    async with running((service(singleton=True, restart=restart), worker)) as harness:
        await give(harness)
        lease_handle = harness.leases["mail"]
        lease_handle.revoke()
        await settle()
        assert (harness.state("mail"), lease_handle.said) == (state, ["request"])
        lease_handle.lose()
        await settle()
        assert lease_handle.said == ["request", "worker_ended"]
        await give(harness)
        assert (harness.state("mail"), worker.runs) == (state, 1)
        await harness.supervisor.stop()
        assert lease_handle.said == ["request", "worker_ended", "decline", "worker_ended"]


async def test_an_exhausted_worker_lets_the_lease_go() -> None:
    """Another node may have better luck."""
    worker = ScriptedWorker(ValueError("no"))
    async with running((service(singleton=True, max_restarts=0), worker)) as harness:
        await give(harness)
        assert harness.state("mail") == "exhausted"
        assert harness.leases["mail"].said == ["request", "decline", "worker_ended"]


async def test_a_backoff_goes_on_under_the_lease() -> None:
    """A failed singleton waits out its backoff with its lease, and not before it has that again."""
    worker = ScriptedWorker(ValueError("no"))
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        assert (harness.state("mail"), harness.leases["mail"].said) == ("waiting", ["request"])
        harness.leases["mail"].revoke()
        await settle()
        assert (harness.state("mail"), harness.leases["mail"].said) == ("standby", ["request", "worker_ended"])
        await give(harness)
        assert harness.state("mail") == "waiting"
        await harness.clock.jump(2.0)
        assert (harness.state("mail"), worker.runs) == ("running", 2)


async def test_an_outage_is_logged_of_leases_not_of_their_workers() -> None:
    """Only workers without a lease count as parked; for the others the loss of their leases is logged."""
    database = SwitchedDatabase()
    workers = [(SINGLETON, ScriptedWorker()), (service("plain"), ScriptedWorker())]
    async with running(*workers, database=database) as harness:
        await give(harness)
        database.go_down()
        harness.supervisor.on_database_down()
        harness.leases["mail"].lose()
        await settle()
        database.come_back()
        harness.supervisor.on_database_up()
        logged = {event: fields for event, _, fields in harness.said if event.startswith("workers.")}
        assert logged["workers.parked"]["workers"] == logged["workers.resumed"]["workers"] == 1
        assert harness.state("mail") == "standby"


async def test_a_run_that_an_outage_ended_gives_its_lease_up_when_that_is_lost() -> None:
    """A parked singleton is in standby once its lease is lost."""
    database = SwitchedDatabase()
    async with running((SINGLETON, ScriptedWorker(ConnectionError("gone"))), database=database) as harness:
        database.go_down()
        await give(harness)
        assert harness.state("mail") == "parked"
        harness.leases["mail"].lose()
        await settle()
        assert (harness.state("mail"), harness.row("mail")["failures"]) == ("standby", 0)


async def test_the_first_holder_ticks_at_once() -> None:
    """A schedule whose first tick comes at once does so where it never ran, however long it stood by."""
    worker = ScriptedWorker(*[None] * 9)
    async with running((periodic(every_s=60.0, singleton=True), worker)) as harness:
        await harness.clock.jump(1000.0)
        assert worker.runs == 0
        await give(harness, "tidy")
        assert worker.runs == 1
        await harness.clock.jump(59.0)
        assert worker.runs == 1
        await harness.clock.jump(1.5)
        assert worker.runs == 2


async def test_ticks_of_another_node_are_not_repeated() -> None:
    """What came due while another node held the lease was that node's; the schedule goes on from there."""
    worker = ScriptedWorker(*[None] * 9)
    async with running((periodic(every_s=60.0, singleton=True), worker)) as harness:
        await give(harness, "tidy")
        harness.leases["tidy"].revoke()
        await settle()
        harness.leases["tidy"].pass_elsewhere()
        await harness.clock.jump(150.0)
        await give(harness, "tidy")
        assert worker.runs == 1
        await harness.clock.jump(29.0)
        assert worker.runs == 1
        await harness.clock.jump(2.0)
        assert worker.runs == 2


async def test_a_tick_that_a_loss_cut_off_is_run_again_if_nobody_else_was_there() -> None:
    """A nightly tick that an outage interrupts must not wait for the next night."""
    worker = ScriptedWorker(None, forever)
    async with running((periodic(every_s=3600.0, singleton=True), worker)) as harness:
        await give(harness, "tidy")
        await harness.clock.jump(3601.0)
        assert worker.runs == 2
        harness.leases["tidy"].lose()
        await harness.clock.jump(5.0)
        await give(harness, "tidy")
        assert worker.runs == 3


async def test_a_tick_that_a_loss_cut_off_is_left_to_who_took_over() -> None:
    """If another node held the lease in between, the tick is not run again here."""
    worker = ScriptedWorker(None, forever)
    async with running((periodic(every_s=3600.0, singleton=True), worker)) as harness:
        await give(harness, "tidy")
        await harness.clock.jump(3601.0)
        harness.leases["tidy"].lose()
        await settle()
        harness.leases["tidy"].pass_elsewhere()
        await harness.clock.jump(5.0)
        await give(harness, "tidy")
        assert (worker.runs, harness.state("tidy")) == (2, "scheduled")


async def test_each_shard_has_its_own_lease() -> None:
    """The shards of a projection come and go one by one; one that runs speaks for the worker."""
    worker = ScriptedWorker()
    async with running((projection(shards=3), worker)) as harness:
        assert sorted(harness.leases) == ["view/1of3", "view/2of3", "view/3of3"]
        assert (harness.state("view"), harness.events()) == ("standby", [])
        await give(harness, "view/2of3")
        row = harness.row("view")
        assert (row["state"], row["running"], row["replicas"]) == ("running", 1, 3)
        instance = next(fields["instance"] for event, _, fields in harness.said if event == "worker.started")
        assert instance == "view/2of3"


async def test_poison_stops_a_shard_whatever_its_restart_says() -> None:
    """An event that cannot be applied ends the shard for good; its lease stays, and only the projection logs it."""
    worker = ScriptedWorker(ProjectionHalted("event 7"))
    async with running((projection(shards=2, restart="always"), worker)) as harness:
        await give(harness, "view/1of2")
        await harness.clock.jump(3600.0)
        assert (harness.state("view"), worker.runs) == ("failed", 1)
        assert harness.events() == ["worker.stopped"]
        assert harness.row("view")["last_error"] == "ProjectionHalted: event 7"
        assert harness.leases["view/1of2"].said == ["request"]


async def test_a_shard_in_a_sharding_conflict_gives_its_lease_up_and_requests_it_again_when_resumed() -> None:
    """Another node's configuration may need the lease; once somebody has acted, this node looks again."""
    worker = ScriptedWorker(ShardingConflict("3 shards elsewhere"))
    async with running((projection(restart="always"), worker)) as harness:
        await give(harness, "view")
        await harness.clock.jump(3600.0)
        assert (harness.state("view"), worker.runs) == ("failed", 1)
        assert harness.leases["view"].said == ["request", "decline", "worker_ended"]
        (reason,) = [fields["reason"] for event, _, fields in harness.said if event == "worker.stopped"]
        assert reason.startswith("a node with a newer configuration")
        harness.supervisor.resume_halted("view")
        await settle()
        assert (harness.state("view"), harness.leases["view"].said[-1]) == ("standby", "request")
        await give(harness, "view")
        assert (harness.state("view"), worker.runs) == ("running", 2)


async def test_resuming_starts_the_halted_shard_and_nothing_else() -> None:
    """After a person has acted only the shard that had stopped is started again."""
    worker = ScriptedWorker(ProjectionHalted("event 7"))
    async with running(
        (projection(shards=2), worker), (service(restart="never"), ScriptedWorker(ValueError))
    ) as harness:
        await give(harness, "view/1of2")
        await give(harness, "view/2of2")
        assert harness.row("view")["running"] == 1
        harness.supervisor.resume_halted("other")
        await settle()
        assert worker.runs == 2
        harness.supervisor.resume_halted("view")
        await settle()
        assert (worker.runs, harness.row("view")["running"], harness.state("view")) == (3, 2, "running")
        harness.supervisor.resume_halted("")
        await settle()
        assert (worker.runs, harness.state("mail")) == (3, "failed")


async def test_a_reload_to_fewer_shards_lets_the_others_go() -> None:
    """After a reload from four shards to two the four leases are given back, and two others are stood for."""
    worker = ScriptedWorker()
    async with running((projection(shards=4), worker)) as harness:
        await give(harness, "view/1of4")
        await give(harness, "view/4of4")
        await reload(harness, [projection(shards=4)], [projection(shards=2)], view=worker)
        former = [harness.leases[f"view/{shard}of4"] for shard in (1, 2, 3, 4)]
        last = [lease_handle.said[-1] for lease_handle in former]
        assert last == ["worker_ended", "decline", "decline", "worker_ended"]
        assert harness.leases["view/1of2"].said == harness.leases["view/2of2"].said == ["request"]
        assert harness.row("view")["replicas"] == 2


async def test_a_removed_worker_releases_its_lease() -> None:
    """A worker that is no longer configured gives its lease back after its run has ended."""
    async with running((SINGLETON, ScriptedWorker())) as harness:
        await give(harness)
        await reload(harness, [SINGLETON], [])
        assert harness.leases["mail"].said == ["request", "decline", "worker_ended"]


async def test_a_changed_worker_keeps_its_lease() -> None:
    """A worker whose settings change is started anew under the lease that it has."""
    changed, worker = SINGLETON._replace(settings={"a": 1}), ScriptedWorker()
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        await reload(harness, [SINGLETON], [changed], mail=worker)
        assert (harness.state("mail"), worker.runs, harness.leases["mail"].said) == ("running", 2, ["request"])


async def test_a_worker_that_is_no_singleton_any_more_lets_its_lease_go() -> None:
    """From then on it runs everywhere."""
    worker = ScriptedWorker()
    async with running((SINGLETON, worker)) as harness:
        await give(harness)
        await reload(harness, [SINGLETON], [service()], mail=worker)
        assert (harness.state("mail"), worker.runs) == ("running", 2)
        assert harness.leases["mail"].said == ["request", "decline", "worker_ended"]


async def test_all_leases_go_and_come_back_when_the_connection_changes() -> None:
    """Workers with leases end before a new connection, and request their leases again afterwards; others run on."""
    specs = [SINGLETON, service("plain"), service("quiet", singleton=True)]
    workers = {spec.name: ScriptedWorker() for spec in specs}
    async with running(*((spec, workers[spec.name]) for spec in specs)) as harness:
        await give(harness)
        await harness.supervisor.pause("quiet")
        await settle()
        await harness.supervisor.stop_leased_workers("the database connection changes")
        assert harness.leases["mail"].said == ["request", "decline", "worker_ended"]
        await reload(harness, specs, specs, **workers)
        assert harness.leases["mail"].said[3:] == ["request"]
        await give(harness)
        assert [harness.state(spec.name) for spec in specs] == ["running", "running", "paused"]
        assert [workers[spec.name].runs for spec in specs] == [2, 1, 0]


async def test_the_status_names_leases_and_who_holds_them_elsewhere() -> None:
    """A row has the lease's name, epoch and status, and the holder of a lease that another node holds, as JSON."""
    async with running((SINGLETON, ScriptedWorker()), (service("plain"), ScriptedWorker())) as harness:
        (lease,) = json.loads(json.dumps(harness.row("mail")["leases"]))
        assert (lease["lease"], lease["standing"], lease["epoch"]) == ("mail", "absent", None)
        assert lease["holder"]["since"] == "2026-01-01T00:00:00.000+00:00"
        await give(harness)
        (lease,) = harness.row("mail")["leases"]
        assert (lease["standing"], lease["epoch"], lease["holder"]) == ("held", 1, None)
        assert harness.row("plain")["leases"] == []


async def test_an_instance_that_misses_a_change_of_its_lease_is_stuck() -> None:
    """Standby although the lease is held, and a run without it, are noticed and repaired by the health check."""
    async with running((SINGLETON, ScriptedWorker())) as harness:
        instance = next(harness.supervisor._instances())
        lease_handle = harness.leases["mail"]
        lease_handle.on_change(None)
        lease_handle.give()
        await settle()
        assert (harness.state("mail"), is_stuck(instance, now_s=0.0, is_up=True)) == ("standby", True)
        assert harness.supervisor.is_healthy()
        await settle()
        assert harness.state("mail") == "running"
        lease_handle.lose()
        assert is_stuck(instance, now_s=0.0, is_up=True)
        harness.supervisor.is_healthy()
        await settle()
        assert harness.state("mail") == "standby"


async def test_a_crash_of_the_instance_does_not_leak_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the instance's own task fails for good, its lease is still given back on request."""

    async def broken(_: WorkerInstance) -> None:
        raise RuntimeError("a fault of the daemon")

    async with running((SINGLETON, ScriptedWorker())) as harness:
        await give(harness)
        instance = next(harness.supervisor._instances())
        monkeypatch.setattr(WorkerInstance, "_run_once", broken)
        monkeypatch.setattr(Wakeup, "wait", broken)
        instance.wakeup.wake()
        harness.leases["mail"].revoke()
        await harness.clock.jump(10.0)
        monkeypatch.undo()
        assert not harness.supervisor.is_healthy()
        assert harness.leases["mail"].said == ["request", "worker_ended"]


async def test_a_crash_of_the_instance_starts_no_second_run(monkeypatch: pytest.MonkeyPatch, deaf: IgnoresStop) -> None:
    """The run of a crashed instance is waited for: a singleton does not run twice, not even then."""

    async def broken(_: Run, **__: Any) -> None:
        monkeypatch.undo()
        await settle()  # the run begins
        raise RuntimeError("a fault of the daemon")

    worker = ScriptedWorker(deaf)
    async with running((SINGLETON, worker)) as harness:
        monkeypatch.setattr(instance_module, "monitor_run", broken)
        await give(harness)
        await settle()
        await harness.clock.jump(60.0)
        assert (harness.state("mail"), worker.runs) == ("abandoned", 1)
        deaf.may_end.set()
        await settle()
        assert (harness.state("mail"), worker.runs) == ("running", 2)
