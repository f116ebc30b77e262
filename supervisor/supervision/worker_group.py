"""The instances of one worker, and the lock that its orders go through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.config.kinds import instances_of
from supervisor.journal import log_event
from supervisor.supervision.instance import WorkerInstance
from supervisor.supervision.instance_log import InstanceLog
from supervisor.supervision.states import DesiredState

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.instance import InstanceServices
    from supervisor.supervision.ports import WorkFactory

# An instance whose task crashes so often by the daemon's own fault will not recover.
_MAX_CRASHES = 3
_CRASH_DELAY_S = 1.0


class GroupServices(NamedTuple):
    """Services shared by all workers of a supervisor.

    Attributes:
        work_factory: Makes the work of one instance.
        instances: The services of each instance.
        mark_failed: Called when the task of an instance has crashed for good.
    """

    work_factory: WorkFactory
    instances: InstanceServices
    mark_failed: Callable[[], None]


class WorkerGroup:
    """One worker: its configuration, the user's function, and the instances that run it.

    Each order that starts, stops or replaces instances holds `lock` from its first step to its last. The exception
    is the daemon's stop: it waits for no order, and an order that it overtakes starts nothing any more.

    Attributes:
        spec: The configuration.
        handler: The user's function.
        desired_state: What is wanted of the worker, whichever instances it has now.
        instances: Its instances, by index.
        tasks: The task of each instance.
        generation: How often all instances have been started.
    """

    __slots__ = ("_lock", "_services", "desired_state", "generation", "handler", "instances", "spec", "tasks")

    def __init__(self, spec: WorkerSpec, handler: Any, services: GroupServices) -> None:
        self.spec = spec
        self.handler = handler
        self.desired_state = DesiredState.RUNNING
        self.instances: list[WorkerInstance] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.generation = 0
        self._services = services
        self._lock: asyncio.Lock | None = None

    @property
    def lock(self) -> asyncio.Lock:
        """Held by the order that is being carried out."""
        if self._lock is None:  # of ten thousand workers, hardly any ever gets an order
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def is_single(self) -> bool:
        """Whether it has one instance, whose own journal entries are the worker's."""
        return len(self.instances) == 1

    @property
    def has_leases(self) -> bool:
        """Whether it runs only where its leases are held."""
        return any(instance.lease is not None for instance in self.instances)

    @property
    def has_halted(self) -> bool:
        """Whether an instance cannot go on until somebody acts."""
        return any(instance.is_halted for instance in self.instances)

    def start_instances(self, *, log_at_debug: bool = False) -> None:
        """Start new instances in the place of those it had, which have ended."""
        count = instances_of(self.spec)
        former, self.instances = self.instances, [self._new_instance(index, count) for index in range(count)]
        self.generation += 1
        for instance, predecessor in zip(self.instances, former, strict=False):
            instance.take_over_from(predecessor)
        for surplus in former[count:]:
            self.instances[0].adopt_abandoned(surplus)
        for instance in self.instances:
            instance.set_desired_state(self.desired_state, log_at_debug=log_at_debug or count > 1)
        self.tasks = [self._start(instance) for instance in self.instances]
        _decline_unused_leases(former, self.instances)
        if not self.has_leases:  # an instance with a lease runs once that is held
            self.log_for_all("worker.started", log_at_debug=log_at_debug)

    def resume_halted(self) -> None:
        """Start a new instance in the place of each one that is halted."""
        for index, halted in enumerate(self.instances):
            if halted.is_halted:
                instance = self._new_instance(index, len(self.instances))
                instance.take_over_from(halted)
                instance.set_desired_state(self.desired_state)
                self.instances[index] = instance
                self.tasks[index] = self._start(instance)

    async def stop_instances(self, reason: str) -> None:
        """Stop every instance, and return when their tasks have ended; a run may have been abandoned."""
        living = self.living_instances()
        self.request_stop(reason)
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.log_stopped(living, reason)

    def living_instances(self) -> list[WorkerInstance]:
        """Return the instances that have not ended."""
        return [instance for instance, task in zip(self.instances, self.tasks, strict=True) if not task.done()]

    def log_stopped(self, instances: list[WorkerInstance], reason: str, *, log_at_debug: bool = False) -> None:
        """Log in one entry how many of these have stopped; an abandoned run has an entry of its own."""
        if count := sum(not instance.has_live_runs for instance in instances):
            self.log_for_all("worker.stopped", log_at_debug=log_at_debug, count=count, reason=reason)

    def request_stop(self, reason: str, *, log_at_debug: bool = False) -> None:
        """Ask every instance to stop."""
        self._set_desired_state(DesiredState.STOPPED, reason, log_at_debug=log_at_debug)

    def set_desired_state(self, desired_state: DesiredState) -> None:
        """Pause every instance, or let it run again."""
        if self.desired_state is not desired_state:
            self.desired_state = desired_state
            self.log_for_all("worker.paused" if desired_state is DesiredState.PAUSED else "worker.unpaused")
        self._set_desired_state(desired_state, "it is paused")

    def decline_leases(self) -> None:
        """Let other nodes have the leases once nothing runs under them: no instance here asks for them again."""
        for instance in self.instances:
            if instance.lease is not None:
                instance.lease.decline_for_good()

    def update_policy(self, spec: WorkerSpec) -> None:
        """Restart and stop the instances by another policy from now on; they run on."""
        self.spec = spec
        for instance in self.instances:
            instance.spec = spec

    def log_for_all(
        self, event: str, *, log_at_debug: bool = False, count: int | None = None, **fields: Any
    ) -> None:  # fmt: skip
        """Log in one entry what all instances did, or `count` of them; a single instance has an entry of its own."""
        if not self.is_single:
            # Several instances with a lease each are shards: a singleton has one.
            fields["shards" if self.has_leases else "replicas"] = len(self.instances) if count is None else count
            log_event(event, level="debug" if log_at_debug else None, worker=self.spec.name, **fields)

    def _set_desired_state(self, desired_state: DesiredState, reason: str, *, log_at_debug: bool = False) -> None:
        for instance in self.instances:
            instance.set_desired_state(desired_state, reason=reason, log_at_debug=log_at_debug or not self.is_single)

    def _new_instance(self, index: int, count: int) -> WorkerInstance:
        worker = self.spec.name
        work = self._services.work_factory(self.spec, self.handler, index)
        name, shard = None, None
        if count > 1 and work.lease_handle is not None:
            name = work.lease_handle.name
            shard = name.removeprefix(f"{worker}/")
        elif count > 1:
            name = f"{worker}/{index}"
        log = InstanceLog(worker, instance=name, shard=shard)
        return WorkerInstance(self.spec, work, self._services.instances, log=log)

    def _start(self, instance: WorkerInstance) -> asyncio.Task[None]:
        tasks = self._services.instances.tasks
        return tasks.start(self._keep_running(instance), name=f"instance {instance.log.name}")

    async def _keep_running(self, instance: WorkerInstance) -> None:
        """Run an instance; a crash of its task is a fault of the daemon, and must not end the worker."""
        try:
            for _ in range(_MAX_CRASHES):
                try:
                    return await instance.run()
                except Exception as error:  # noqa: BLE001 - logged, and repaired as far as possible
                    log_event("daemon.failed", exc=error, worker=instance.spec.name)
                    instance.reset_after_crash()
                    await self._services.instances.clock.sleep(_CRASH_DELAY_S)
            return self._services.mark_failed()
        finally:
            instance.attend_lease_after_end()


def _decline_unused_leases(former: list[WorkerInstance], instances: list[WorkerInstance]) -> None:
    """Decline the leases that no instance needs any more: a reload may have changed the number of shards."""
    kept = {instance.lease.handle.name for instance in instances if instance.lease is not None}
    for instance in former:
        if instance.lease is not None and instance.lease.handle.name not in kept:
            instance.lease.decline_for_good()
