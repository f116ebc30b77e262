"""Orders for one worker are carried out one at a time, whatever else happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.clock import FakeClock, MaxJitterRandom, settle
from support.scripted_lease import ScriptedLease
from support.workers import (
    ScriptedWorker,
    SwitchedDatabase,
    _config,
    periodic,
    projection,
    reload,
    running,
    service,
)

from supervisor.config.diff import diff_configs
from supervisor.config.model import Projection
from supervisor.errors import ProjectionHalted
from supervisor.events.shard import lease_name
from supervisor.leases.lease import LeaseStatus
from supervisor.runtime import Runtime
from supervisor.supervision.supervisor import OrderRefused, Supervisor, UnknownWorker
from supervisor.supervision.worker_group import WorkerGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.workers import SupervisionHarness

    from supervisor.config.model import WorkerSpec
    from supervisor.errors import WorkerExhausted
    from supervisor.stop_signal import StopSignal
    from supervisor.supervision.instance import WorkerInstance
    from supervisor.supervision.ports import Work
    from supervisor.supervision.run import Run

DRAIN_S = 5.0


async def slow_to_stop(ctx: Any) -> None:
    """Take five seconds more after the stop."""
    while not ctx.stopping:
        await ctx._clock.sleep(0.1)
    await ctx._clock.sleep(DRAIN_S)


def all_instances(supervisor: Supervisor) -> list[WorkerInstance]:
    return supervisor._all_instances()


def tracked_runs(supervisor: Supervisor) -> list[Run]:
    """Return the live runs that some instance answers for."""
    runs = []
    for instance in all_instances(supervisor):
        runs += [run for run in (instance.current_run, *instance.abandoned_runs) if run is not None and not run.is_done]
    return runs


def live_run_tasks() -> list[asyncio.Task[Any]]:
    """Return the tasks inside of which the loop executes runs now."""
    return [task for task in asyncio.all_tasks() if is_run(task)]


def is_run(task: asyncio.Task[Any]) -> bool:
    return "_run_contained" in getattr(task.get_coro(), "__name__", "")


def check_runs(supervisor: Supervisor) -> None:
    """Check that every live run is tracked, exactly once, and that the status counts it."""
    tracked = Counter(run._task for run in tracked_runs(supervisor))
    assert tracked == Counter(live_run_tasks())
    counted = sum(row["running"] + row["abandoned"] for row in supervisor.status())
    of_removed = sum(
        not run.is_done
        for instances in supervisor._removed_but_alive.values()
        for i in instances
        for run in i.abandoned_runs
    )
    assert counted + of_removed == tracked.total()


async def started(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Begin an order that takes its time."""
    task = asyncio.ensure_future(work)
    await settle()
    assert isinstance(task, asyncio.Task)
    return task


async def give(harness: SupervisionHarness, *names: str) -> None:
    for name in names:
        harness.leases[name].give()
    await settle()


@pytest.mark.parametrize("singleton", [False, True])
async def test_a_restart_during_the_reload_that_removes_the_worker_starts_nothing(*, singleton: bool) -> None:
    """The worker is gone when the restart's turn comes: it raises, and nothing of the worker runs."""
    spec = service(singleton=singleton, stop_timeout_s=30.0)
    async with running((spec, ScriptedWorker(slow_to_stop))) as harness:
        if singleton:
            await give(harness, "mail")
        removal = await started(reload(harness, [spec], []))
        restart = await started(harness.supervisor.restart("mail"))
        await harness.clock.jump(60.0)
        await removal
        assert harness.supervisor.status() == []
        assert live_run_tasks() == []
        with pytest.raises(UnknownWorker):
            await restart
        if singleton:
            assert harness.leases["mail"].status is LeaseStatus.NOT_HELD


@pytest.mark.parametrize("restart_comes_first", [False, True])
async def test_a_restart_and_a_reload_that_changes_the_worker_leave_one_run(*, restart_comes_first: bool) -> None:
    """Whichever comes first, one run is left, and it has the new configuration."""
    worker = ScriptedWorker(slow_to_stop, slow_to_stop)
    old, new = service(stop_timeout_s=30.0), service(stop_timeout_s=30.0, settings={"a": 1})
    async with running((old, worker)) as harness:
        restart = await started(harness.supervisor.restart("mail")) if restart_comes_first else None
        change = await started(reload(harness, [old], [new], mail=worker))
        restart = restart or await started(harness.supervisor.restart("mail"))
        await harness.clock.jump(60.0)
        await asyncio.gather(change, restart)
        assert len(live_run_tasks()) == 1
        assert worker.contexts[-1].settings == {"a": 1}
        check_runs(harness.supervisor)


async def test_a_restart_of_a_worker_that_was_removed_and_added_again_concerns_the_removed_one() -> None:
    """An order waits for the worker that it was given for; the next worker of that name is not restarted."""
    worker, again = ScriptedWorker(slow_to_stop), ScriptedWorker()
    spec = service(stop_timeout_s=30.0)
    async with running((spec, worker)) as harness:

        async def reloads() -> None:
            await reload(harness, [spec], [])
            await reload(harness, [], [spec], mail=again)

        both = await started(reloads())
        restart = await started(harness.supervisor.restart("mail"))
        await harness.clock.jump(60.0)
        await both
        with pytest.raises(UnknownWorker):
            await restart
        assert (again.runs, len(live_run_tasks())) == (1, 1)


async def test_resuming_a_shard_during_a_restart_runs_no_shard_twice() -> None:
    """A halted shard that is resumed while another one still drains for a restart runs once, under its lease."""
    poisoned, drains = asyncio.Event(), asyncio.Event()
    clock = FakeClock()
    runs: Counter[str] = Counter()

    async def shard(work: Any) -> None:
        name = work.lease_handle.name
        runs[name] += 1
        if name == "view/1of2" and not poisoned.is_set():
            poisoned.set()
            raise ProjectionHalted("event 7")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if name == "view/2of2" and not drains.is_set():
                drains.set()
                await clock.sleep(DRAIN_S)

    spec = projection(shards=2, stop_timeout_s=30.0)
    async with running((spec, shard), clock=clock) as harness:
        await give(harness, "view/1of2", "view/2of2")
        assert harness.state("view") == "failed"
        restart = await started(harness.supervisor.restart("view"))
        harness.supervisor.resume_halted("view")
        await settle()
        check_runs(harness.supervisor)
        await clock.jump(60.0)
        await restart
        assert sorted(task.get_name() for task in live_run_tasks()) == ["view/1of2", "view/2of2"]
        check_runs(harness.supervisor)


async def test_a_stop_overtakes_every_order() -> None:
    """Neither an order that drains its worker nor those that wait behind it hold the stop up, and none starts a run."""
    spec = service(stop_timeout_s=600.0)

    async def slower(ctx: Any) -> None:
        while not ctx.stopping:
            await ctx._clock.sleep(0.1)
        await ctx._clock.sleep(500.0)

    worker = ScriptedWorker(slower)
    async with running((spec, worker)) as harness:
        supervisor = harness.supervisor
        await harness.clock.jump(1.0)
        orders = [await started(order("mail")) for order in (supervisor.restart, supervisor.pause, supervisor.restart)]
        orders.append(await started(reload(harness, [spec], [service(settings={"a": 1})], mail=worker)))
        stop = await started(supervisor.stop())
        await harness.clock.jump(10.0)
        assert not any(task.done() for task in (stop, *orders))
        supervisor.force_stop()
        await harness.clock.jump(0.1)
        assert await stop == []
        await settle()
        assert all(order.done() for order in orders)
        assert (worker.runs, live_run_tasks()) == (1, [])
        # None of them has done what it was to do.
        assert [str(order.exception()) for order in orders[:3]] == ["the daemon is stopping"] * 3


async def test_orders_for_different_workers_do_not_wait_for_each_other() -> None:
    """While one worker drains, another one is restarted, paused and resumed."""
    slow, quick = ScriptedWorker(slow_to_stop), ScriptedWorker()
    specs = service("slow", stop_timeout_s=30.0), service("quick")
    async with running(*zip(specs, (slow, quick), strict=True)) as harness:
        await harness.clock.jump(1.0)
        drains = await started(harness.supervisor.restart("slow"))
        await harness.supervisor.restart("quick")
        await settle()
        await harness.supervisor.pause("quick")
        await settle()
        await harness.supervisor.resume("quick")
        await settle()
        assert (harness.state("quick"), quick.runs, drains.done()) == ("running", 3, False)
        await harness.clock.jump(DRAIN_S + 1.0)
        assert (drains.done(), slow.runs) == (True, 2)


async def test_restarts_that_wait_for_a_restart_are_served_by_it() -> None:
    """Ten restarts of a worker that drains for a while drain it once; a pause between two of them is not lost."""
    worker = ScriptedWorker(slow_to_stop)
    async with running((service(stop_timeout_s=30.0), worker)) as harness:
        await harness.clock.jump(1.0)
        restarts = [await started(harness.supervisor.restart("mail")) for _ in range(10)]
        await harness.clock.jump(DRAIN_S + 1.0)
        await asyncio.gather(*restarts)
        assert worker.runs == 2
        worker.script.append(slow_to_stop)
        await harness.supervisor.restart("mail")
        await harness.clock.jump(1.0)
        orders = [
            await started(order("mail"))
            for order in (harness.supervisor.restart, harness.supervisor.pause, harness.supervisor.restart)
        ]
        await harness.clock.jump(DRAIN_S + 1.0)
        await asyncio.gather(*orders)
        assert (harness.state("mail"), harness.row("mail")["wanted"]) == ("running", "running")


async def test_nothing_but_the_reload_starts_what_was_stopped_for_another_connection() -> None:
    """A restart, a resumption or a notification leaves a worker stopped whose leases belong to the old connection."""
    spec, worker = service(singleton=True), ScriptedWorker()
    async with running((spec, worker)) as harness:
        await give(harness, "mail")
        await harness.supervisor.stop_leased_workers("the database connection changes")
        for order in (harness.supervisor.restart, harness.supervisor.resume):
            with pytest.raises(OrderRefused, match="'mail' is stopped while the database connection is changed"):
                await order("mail")
        harness.supervisor.resume_halted("")
        await settle()
        assert (harness.state("mail"), harness.leases["mail"].said[-1]) == ("stopped", "worker_ended")
        await reload(harness, [spec], [spec])
        await give(harness, "mail")
        assert (harness.state("mail"), worker.runs) == ("running", 2)


async def test_a_removed_worker_whose_run_would_not_end_is_taken_over_when_it_is_added_again() -> None:
    """The abandoned run stays known while its worker is gone, and the worker that comes back counts it."""
    may_end = asyncio.Event()

    async def deaf(_: Any) -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    spec = service(stop_timeout_s=1.0)
    async with running((spec, ScriptedWorker(deaf))) as harness:
        removal = await started(reload(harness, [spec], []))
        await harness.clock.jump(10.0)
        await removal
        check_runs(harness.supervisor)
        await reload(harness, [], [spec], mail=ScriptedWorker())
        assert (harness.row("mail")["running"], harness.row("mail")["abandoned"]) == (1, 1)
        check_runs(harness.supervisor)
        may_end.set()


async def test_a_paused_worker_that_takes_over_an_abandoned_run_is_paused_once_that_has_ended() -> None:
    """A reload of a paused singleton whose tick would not end: the lease goes when the tick has ended."""
    may_end = asyncio.Event()

    async def deaf(_: Any) -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    spec = periodic(every_s=10.0, stall_timeout_s=5.0, stop_timeout_s=1.0, singleton=True)
    changed = spec._replace(settings={"a": 1})
    async with running((spec, ScriptedWorker(deaf))) as harness:
        await give(harness, "tidy")
        await harness.clock.jump(30.0)
        await harness.supervisor.pause("tidy")
        await reload(harness, [spec], [changed], tidy=ScriptedWorker())
        assert harness.leases["tidy"].said == ["request"]
        may_end.set()
        await settle()
        assert (harness.state("tidy"), harness.leases["tidy"].said) == (
            "paused",
            ["request", "decline", "worker_ended"],
        )


async def test_a_worker_that_cannot_be_changed_leaves_no_other_one_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a reload fails at one worker, the others are changed all the same, and the next reload mends the one."""
    good, bad = ScriptedWorker(slow_to_stop), ScriptedWorker()
    old = [service("good", stop_timeout_s=30.0), service("bad")]
    new = [spec._replace(settings={"a": 1}) for spec in old]
    async with running(*zip(old, (good, bad), strict=True)) as harness:
        await harness.clock.jump(1.0)

        def broken(_: WorkerGroup, index: int, count: int) -> Any:
            raise RuntimeError(f"no instance {index} of {count}")

        with monkeypatch.context() as patched:
            patched.setattr(WorkerGroup, "_new_instance", broken)
            change = await started(reload(harness, old, new, good=good, bad=bad))
        await harness.clock.jump(DRAIN_S + 1.0)
        with pytest.raises(RuntimeError, match="no instance 0 of 1"):
            await change
        assert (harness.state("good"), good.contexts[-1].settings) == ("running", {"a": 1})
        assert harness.state("bad") == "stopped"
        await reload(harness, old, new, good=good, bad=bad)
        assert (harness.state("bad"), bad.contexts[-1].settings) == ("running", {"a": 1})
        check_runs(harness.supervisor)


async def test_only_what_has_stopped_is_logged_as_stopped() -> None:
    """The one entry for all instances counts those that ended; none is written when every run was abandoned."""
    may_end = asyncio.Event()

    async def deaf(_: Any) -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    def stopped(harness: SupervisionHarness) -> list[int]:
        entries = (
            fields for event, _, fields in harness.said if event == "worker.stopped" and "instance" not in fields
        )
        return [fields["replicas"] for fields in entries]

    worker = ScriptedWorker(deaf, slow_to_stop, deaf, deaf, deaf, deaf)
    async with running((service(replicas=3, stop_timeout_s=1.0), worker)) as harness:
        restart = await started(harness.supervisor.restart("mail"))
        await harness.clock.jump(20.0)
        await restart
        assert stopped(harness) == [1]
        stop = await started(harness.supervisor.stop())
        await harness.clock.jump(20.0)
        assert await stop == ["mail"]
        assert stopped(harness) == [1]
        may_end.set()
        await settle()


async def test_a_changed_connection_logs_the_stop_of_a_projection_once() -> None:
    """Its shards are stopped before the connection changes; their new start afterwards stops nothing."""
    specs, worker = [projection(shards=2)], ScriptedWorker()
    async with running((specs[0], worker)) as harness:
        await give(harness, "view/1of2", "view/2of2")
        await harness.supervisor.stop_leased_workers("the database connection changes")
        await reload(harness, specs, specs, view=worker)
        stops = [fields for event, _, fields in harness.said if event == "worker.stopped" and "instance" not in fields]
        assert [(fields["shards"], fields["reason"]) for fields in stops] == [(2, "the database connection changes")]


async def test_a_projection_counts_its_shards_and_a_service_its_replicas() -> None:
    """The one entry for all instances of a worker names them as the configuration does."""
    workers = [(projection(shards=2), ScriptedWorker()), (service(replicas=3), ScriptedWorker())]
    async with running(*workers) as harness:
        await harness.supervisor.stop()
        counts = {
            fields["worker"]: (fields.get("shards"), fields.get("replicas"))
            for event, _, fields in harness.said
            if event == "worker.stopped" and "instance" not in fields
        }
        assert counts == {"view": (2, None), "mail": (None, 3)}


class ModelSchedule:
    """A tick every ten seconds."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._due_s = clock.now_s()

    def delay_s(self) -> float:
        return self._due_s - self._clock.now_s()

    def next_run_s(self) -> float:
        return self._due_s

    def mark_started(self) -> None:
        self._due_s = self._clock.now_s() + 10.0

    def skip_missed(self) -> None:
        self._due_s = max(self._due_s, self._clock.now_s() + 10.0)


class ModelWork:
    """Work whose runs end as the machine says: at once, after a while, or hardly at all."""

    def __init__(self, machine: Orders, spec: WorkerSpec, name: str, lease_handle: ScriptedLease | None) -> None:
        self.schedule = ModelSchedule(machine.clock) if spec.name == "tidy" else None
        self.lease_handle = lease_handle
        self._machine = machine
        self._name = name

    async def run(self, stop: StopSignal) -> None:  # noqa: ARG002 - it is cancelled
        clock = self._machine.clock
        if self.schedule is not None:
            await clock.sleep(3.0)
            return
        poison = self._machine.poison[self._name] = asyncio.get_running_loop().create_future()
        try:
            await poison
        except asyncio.CancelledError:
            drain_s = self._machine.drain_s.get(self._name, 0.0)
            until_s = clock.now_s() + drain_s
            while clock.now_s() < until_s and not self._machine.is_over:
                try:
                    await clock.sleep(until_s - clock.now_s())
                except asyncio.CancelledError:
                    continue
            raise


SPECS: dict[str, WorkerSpec] = {
    "plain": service("plain", replicas=2, stop_timeout_s=4.0),
    "single": service("single", singleton=True, stop_timeout_s=10.0),
    "tidy": periodic("tidy", singleton=True, stop_timeout_s=10.0),
    "view": projection("view", shards=2, stop_timeout_s=10.0),
}
LEASES = ["single", "tidy", "view/1of2", "view/2of2", "view/1of3", "view/2of3", "view/3of3"]
NAMES = st.sampled_from(sorted(SPECS))


class Orders(RuleBasedStateMachine):
    """A supervisor under every sequence of orders, reloads, lease changes and time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.is_over = False
        self.clock = FakeClock()
        self.leases: dict[str, ScriptedLease] = {}
        self.poison: dict[str, asyncio.Future[None]] = {}
        # plain/1 does not end within its stop timeout and the grace after it: it is abandoned.
        self.drain_s = {"plain/1": 25.0, "single": DRAIN_S, "view/2of2": DRAIN_S}
        self.config = dict(SPECS)
        self.changes = 0
        self.orders: list[asyncio.Task[Any]] = []
        self.overruns: list[str] = []
        self.exits: list[WorkerExhausted] = []
        self.do(self._set_up())

    async def _set_up(self) -> None:
        self.reloading = asyncio.Lock()
        self.supervisor = Supervisor(
            work_factory=self._make_work,
            database=SwitchedDatabase(),
            runtime=Runtime(clock=self.clock, rng=MaxJitterRandom(), tasks=None, notifier=None, journal=None),  # type: ignore[arg-type]
            on_exhausted=self.exits.append,
            on_lease_overrun=self.overruns.append,
        )
        self.supervisor.start(self.config.values(), dict.fromkeys(self.config))
        await settle()
        for lease_handle in self.leases.values():
            lease_handle.give()

    def _make_work(self, spec: WorkerSpec, function: Any, index: int) -> Work:  # noqa: ARG002 - the work is the machine's
        if spec.name == "plain":
            return ModelWork(self, spec, f"plain/{index}", None)
        name = spec.name
        if isinstance(spec.kind, Projection):
            name = lease_name(spec.name, index, spec.kind.shards)
        lease_handle = self.leases.setdefault(name, ScriptedLease(name))
        return ModelWork(self, spec, name, lease_handle)

    def do(self, work: Awaitable[Any]) -> None:
        async def settled() -> None:
            await work
            await settle()

        self.loop.run(settled())

    def order(self, give_order: Callable[[], Any]) -> None:
        """Give an order and go on; an order for a worker that is not there raises UnknownWorker and nothing else."""

        async def obey() -> None:
            with contextlib.suppress(UnknownWorker, OrderRefused):
                result = give_order()
                if inspect.isawaitable(result):
                    await result

        async def begin() -> None:
            self.orders.append(asyncio.get_running_loop().create_task(obey()))

        self.do(begin())

    @rule(name=NAMES, order=st.sampled_from(["restart", "restart", "pause", "resume"]))
    def order_for_one(self, name: str, order: str) -> None:
        self.order(lambda: getattr(self.supervisor, order)(name))

    @rule(name=st.sampled_from(["view", ""]))
    def resume_halted(self, name: str) -> None:
        self.order(lambda: self.supervisor.resume_halted(name))

    @rule(name=NAMES, how=st.sampled_from(["without", "with", "changed"]))
    def reload(self, name: str, how: str) -> None:
        async def apply() -> None:
            async with self.reloading:  # as the daemon does: one reload at a time
                old = dict(self.config)
                self.config.pop(name, None)
                if how == "with":
                    self.config[name] = old.get(name, SPECS[name])
                elif how == "changed":
                    self.changes += 1
                    shards = 2 + self.changes % 2
                    changed = projection("view", shards=shards, stop_timeout_s=10.0) if name == "view" else SPECS[name]
                    self.config[name] = changed._replace(settings={"change": self.changes})
                change = diff_configs(_config(*old.values()), _config(*self.config.values()))
                await self.supervisor.apply(change, workers=self.config, handlers=dict.fromkeys(self.config))

        self.order(apply)

    @rule()
    def leases_gained(self) -> None:
        for lease_handle in self.leases.values():
            is_requested = [said for said in lease_handle.said if said != "worker_ended"][-1:] == ["request"]
            if is_requested and lease_handle.status is LeaseStatus.NOT_HELD:
                self.order(lease_handle.give)

    @rule(name=st.sampled_from(LEASES), how=st.sampled_from(["lose", "revoke"]))
    def lease_lost(self, name: str, how: str) -> None:
        lease_handle = self.leases.get(name)
        if lease_handle is not None and lease_handle.status is LeaseStatus.HELD:
            self.order(lease_handle.lose if how == "lose" else lease_handle.revoke)

    @rule(name=st.sampled_from(["view/1of2", "view/1of3"]))
    def halt(self, name: str) -> None:
        poison = self.poison.get(name)
        if poison is not None and not poison.done():
            poison.set_exception(ProjectionHalted("event 7"))
            self.do(settle())

    @rule(delta_s=st.sampled_from([0.1, 3.0, 6.0, 40.0]))
    def time_passes(self, delta_s: float) -> None:
        self.do(self.clock.jump(delta_s))

    @invariant()
    def live_runs_are_the_tracked_ones(self) -> None:
        async def check() -> None:
            check_runs(self.supervisor)

        self.loop.run(check())

    @invariant()
    def a_lease_has_one_run_and_none_without_it(self) -> None:
        names = Counter(task.get_name() for task in asyncio.all_tasks(self.loop.get_loop()) if is_run(task))
        for name, lease_handle in self.leases.items():
            assert names[name] <= (lease_handle.status is not LeaseStatus.NOT_HELD), (name, lease_handle.status)

    @invariant()
    def the_status_has_the_workers_of_the_configuration(self) -> None:
        if not self.reloading.locked():
            assert {row["name"] for row in self.supervisor.status()} == set(self.config)

    def teardown(self) -> None:
        async def stop() -> None:
            # No order waits for another one for ever, and the stop waits for none of them.
            # Each order that waits for another one begins its drain, at most, when that one has ended.
            for _ in self.orders:
                if all(order.done() for order in self.orders):
                    break
                await self.clock.jump(60.0)
            assert all(order.done() for order in self.orders)
            task = asyncio.get_running_loop().create_task(self.supervisor.stop())
            await self.clock.jump(60.0)
            await task
            await self.clock.jump(60.0)
            assert live_run_tasks() == []
            for order in self.orders:
                await order

        try:
            self.loop.run(stop())
        finally:
            self.is_over = True
            self.loop.close()


TestEverySequence = Orders.TestCase
TestEverySequence.settings = settings(max_examples=200, stateful_step_count=30, derandomize=True, deadline=None)
