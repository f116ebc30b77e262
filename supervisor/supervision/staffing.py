"""Puts instances in their places: those of a worker that starts, and those that follow others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.model import Projection, Service
from supervisor.journal import log_event
from supervisor.supervision.report import Report
from supervisor.supervision.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.crew import Crew
    from supervisor.supervision.floor import Floor
    from supervisor.supervision.soundness import Soundness
    from supervisor.supervision.work import Work

    # What makes the work of one instance: from the configuration, the user's function, and the instance's index.
    Hire = Callable[[WorkerSpec, Any, int], Work]

# A runner that fails so often by its own fault will not get better.
_MOST_CRASHES = 3


def instances_of(spec: WorkerSpec) -> int:
    """Return how many instances a worker has on this node: replicas, or shards to stand for."""
    match spec.kind:
        case Service(replicas):
            return replicas
        case Projection(shards=shards):
            return shards
        case _:
            return 1


class Staffing:
    """Makes runners and keeps each going in a task of its own."""

    def __init__(self, hire: Hire, floor: Floor, soundness: Soundness) -> None:
        self._hire = hire
        self._floor = floor
        self._soundness = soundness

    def fill(self, crew: Crew, *, is_quiet: bool = False) -> None:
        """Start a crew's instances in the place of those that it had."""
        count = instances_of(crew.spec)
        former, crew.runners, crew.tasks = crew.runners, [], []
        for index in range(count):
            runner = self._runner(crew, index, count)
            if index < len(former):
                runner.succeed(former[index])
            runner.order(crew.wanted, is_quiet=is_quiet or count > 1)
            crew.runners.append(runner)
            crew.tasks.append(self._begin(runner))
        for surplus in former[count:]:
            crew.runners[0].inherit(surplus)
        _give_up_leases(former, crew.runners)
        if crew.runners[0].tenancy is None:  # who has leases runs once it holds them
            crew.tell("worker.started", is_quiet=is_quiet)

    def refill(self, crew: Crew, index: int) -> None:
        """Start one instance in the place of another that has ended."""
        runner = self._runner(crew, index, len(crew.runners))
        runner.succeed(crew.runners[index])
        runner.order(crew.wanted)
        crew.runners[index] = runner
        crew.tasks[index] = self._begin(runner)

    def _runner(self, crew: Crew, index: int, count: int) -> Runner:
        work = self._hire(crew.spec, crew.function, index)
        instance = None
        if count > 1:
            instance = work.tenure.name if work.tenure is not None else f"{crew.spec.name}/{index}"
        return Runner(crew.spec, work, self._floor, report=Report(crew.spec.name, instance=instance))

    def _begin(self, runner: Runner) -> Any:
        return self._floor.tasks.start(self._live(runner), name=f"runner {runner.report.name}")

    async def _live(self, runner: Runner) -> None:
        """Keep a runner going; that it fails by its own fault is ours, and must not end the worker."""
        try:
            for _ in range(_MOST_CRASHES):
                try:
                    return await runner.live()
                except Exception as error:  # noqa: BLE001 - told, and mended as far as it can be
                    log_event("daemon.failed", exc=error, worker=runner.spec.name)
                    runner.recover()
                    await self._floor.clock.sleep(1.0)
            return self._soundness.lose()
        finally:
            if runner.tenancy is not None:
                runner.tenancy.rest(runner)


def _give_up_leases(former: list[Runner], runners: list[Runner]) -> None:
    """Let go of the leases that nobody stands for any more: a reload may have changed the number of shards."""
    kept = {runner.tenancy.tenure.name for runner in runners if runner.tenancy is not None}
    for runner in former:
        if runner.tenancy is not None and runner.tenancy.tenure.name not in kept:
            runner.tenancy.give_up()
