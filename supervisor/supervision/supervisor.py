"""Owns all workers: starts them, carries out orders, applies a reload, stops them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.config.kinds import kind_of
from supervisor.errors import SupervisorError
from supervisor.journal import log_event
from supervisor.suggestions import nearest
from supervisor.supervision.instance import InstanceServices
from supervisor.supervision.progress_check import ProgressCheck
from supervisor.supervision.states import FINAL, UNHEALTHY, DesiredState, InstanceState
from supervisor.supervision.stop_policy import GRACE_S
from supervisor.supervision.worker_group import GroupServices, WorkerGroup
from supervisor.supervision.worker_status import worker_row
from supervisor.tasks import BackgroundTasks
from supervisor.wakeup import TimerQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping

    from supervisor.config.diff import ConfigDiff
    from supervisor.config.model import WorkerSpec
    from supervisor.errors import WorkerExhausted
    from supervisor.runtime import Runtime
    from supervisor.supervision.instance import WorkerInstance
    from supervisor.supervision.ports import DatabaseStatus, WorkFactory

# Of the workers that start or stop together, the first ones are logged at info level, the rest at debug level.
MAX_INFO_ENTRIES = 20
# Every stop ends by its own deadlines; this margin is added in case one does not.
_SAFETY_MARGIN_S = 5.0
_DAEMON_STOPS = "the daemon stops"


class UnknownWorker(SupervisorError):
    """There is no worker of this name; the message names the nearest one."""

    @classmethod
    def suggesting(cls, known: Iterable[str], name: str) -> UnknownWorker:
        """Return the error for a name that is not known."""
        near = nearest(name, known, normalise=False)
        hint = f"; did you mean {near!r}?" if near else ""
        return cls(f"there is no worker {name!r}{hint}")


class OrderRefused(SupervisorError):
    """An order cannot be carried out now; the message says why."""


class Supervisor:
    """All workers of the daemon, by name.

    Orders for the same worker are carried out one at a time, in the order in which they came; orders for different
    workers do not wait for each other. The daemon's stop waits for no order.

    Args:
        work_factory: Makes the work of one instance from its configuration and the user's function.
        database: The database.
        runtime: Time and chance; the supervisor owns its background tasks.
        on_exhausted: Called once a worker is exhausted whose configuration says that the daemon ends with it.
        on_lease_overrun: Called with the name of a worker with a lease whose run did not end by its deadline: the
            process has to end before another node runs the worker. During the stop it is called only if the lease is
            lost; for the others, see `holding_leases()`.
    """

    def __init__(
        self,
        *,
        work_factory: WorkFactory,
        database: DatabaseStatus,
        runtime: Runtime,
        on_exhausted: Callable[[WorkerExhausted], None],
        on_lease_overrun: Callable[[str], object],
    ) -> None:
        self._database = database
        self._clock = runtime.clock
        self._tasks = BackgroundTasks(self._on_crash)
        self._timers = TimerQueue(clock=runtime.clock, tasks=self._tasks)
        self._database_wait: asyncio.Task[None] | None = None
        self._up_since_s = float("-inf")
        self._on_lease_overrun = on_lease_overrun
        self._progress = ProgressCheck()
        self._services = GroupServices(
            work_factory=work_factory,
            instances=InstanceServices(
                clock=runtime.clock,
                rng=runtime.rng,
                tasks=self._tasks,
                timers=self._timers,
                database=database,
                up_since_s=lambda: self._up_since_s,
                on_parked=self._wake_parked_when_up,
                on_exhausted=on_exhausted,
                on_lease_overrun=self._report_lease_overrun,
            ),
            mark_failed=self._progress.mark_failed,
        )
        self._groups: dict[str, WorkerGroup] = {}
        # Instances of removed workers whose runs would not end.
        self._removed_but_alive: dict[str, list[WorkerInstance]] = {}
        # Workers that nothing but a reload starts again: the database connection is being changed.
        self._stopped_for_switch: set[str] = set()
        self._is_stopping = False

    def start(self, specs: Iterable[WorkerSpec], handlers: Mapping[str, Any]) -> None:
        """Start workers; `handlers` holds the user's function of each by the worker's name."""
        for number, spec in enumerate(specs):
            group = self._groups[spec.name] = WorkerGroup(spec, handlers[spec.name], self._services)
            group.instances = self._removed_but_alive.pop(spec.name, [])
            self._start_instances(group, log_at_debug=number >= MAX_INFO_ENTRIES)

    async def stop(self) -> list[str]:
        """Stop all workers, and return the names of those that did not end and were abandoned.

        Waits for no order that is being carried out: those start nothing any more. Bounded by the longest
        `stop_timeout` plus a few seconds, or by `force_stop()`.
        """
        self._is_stopping = True
        tasks = {task for group in self._groups.values() for task in group.tasks if not task.done()}
        groups = list(self._groups.values())
        living = [group.living_instances() for group in groups]
        longest_s = max((group.spec.stop_timeout_s for group in self._groups.values()), default=0.0)
        for number, group in enumerate(self._groups.values()):
            group.request_stop(_DAEMON_STOPS, log_at_debug=number >= MAX_INFO_ENTRIES)
            group.decline_leases()
        if tasks:
            ended = self._tasks.start(_wait_for_all(tasks), name="workers end")
            await done_within(ended, longest_s + GRACE_S + _SAFETY_MARGIN_S, clock=self._clock)
        for number, (group, instances) in enumerate(zip(groups, living, strict=True)):
            group.log_stopped(instances, _DAEMON_STOPS, log_at_debug=number >= MAX_INFO_ENTRIES)
        self._timers.close()
        self._tasks.cancel_all()
        return sorted({instance.spec.name for instance in self._all_instances() if instance.has_live_runs})

    def holding_leases(self) -> list[str]:
        """Return the workers whose leases cannot be given back, because their runs would not end."""
        alive = (each for each in self._all_instances() if each.lease is not None and each.has_live_runs)
        return sorted({instance.spec.name for instance in alive})

    def force_stop(self) -> None:
        """Cancel all runs that are being stopped; only a short grace is left."""
        for instance in self._instances():
            instance.force_stop()

    async def pause(self, name: str) -> None:
        """Let a worker end its runs, and not run again until it is resumed.

        Raises:
            UnknownWorker: There is no such worker (any more); nothing has happened.
            OrderRefused: The daemon stops; nothing has happened.
        """
        async with self._exclusively(self._group(name)) as group:
            self._refuse_if_stopping()
            group.set_desired_state(DesiredState.PAUSED)

    async def resume(self, name: str) -> None:
        """Let a paused worker run again.

        Raises:
            UnknownWorker: There is no such worker (any more); nothing has happened.
            OrderRefused: The daemon stops, or only a reload may start the worker; nothing has happened.
        """
        async with self._exclusively(self._group(name)) as group:
            self._refuse_start(name)
            group.set_desired_state(DesiredState.RUNNING)

    async def restart(self, name: str) -> None:
        """Stop a worker and start it with an empty history, whatever its state was, and return then.

        Raises:
            UnknownWorker: There is no such worker (any more); nothing has happened.
            OrderRefused: Only a reload may start the worker, and nothing has happened; or the daemon stops, and the
                worker with it.
        """
        group = self._group(name)
        generation = group.generation
        async with self._exclusively(group):
            self._refuse_start(name)
            if group.generation != generation and group.desired_state is DesiredState.RUNNING:
                return  # an order before this one has started it anew in the meantime
            group.desired_state = DesiredState.RUNNING
            await self._replace_instances(group, "it is restarted")
            self._refuse_if_stopping()

    def resume_halted(self, name: str) -> None:
        """Let the halted instances of a projection run again when the worker's turn comes: somebody has acted.

        Args:
            name: The projection's name; empty: any. That it is not here, or not halted, is no error.
        """
        for group in self._groups.values():
            if name in ("", group.spec.name) and group.has_halted:
                self._tasks.start(self._resume_halted(group), name=f"resume {group.spec.name}")

    async def stop_leased_workers(self, reason: str) -> None:
        """Stop every worker with a lease and decline the leases; `apply` starts those again that are to run.

        Until then a restart starts none of them: the connection that their leases depend on goes.
        """
        leased = [group for group in self._groups.values() if group.has_leases]
        await _carry_out([self._stop_for_switch(group, reason) for group in leased])

    async def apply(
        self, difference: ConfigDiff, *, workers: Mapping[str, WorkerSpec], handlers: Mapping[str, Any]
    ) -> None:
        """Apply the difference between two configurations; the other workers do not notice.

        All changes go on at the same time, each bounded by its worker's own deadlines. Returns when
        the last one is done. A paused worker stays paused.

        Args:
            difference: What has changed.
            workers: The workers of the new configuration.
            handlers: The user's function of each added or changed worker, by the worker's name.
        """
        running_on = frozenset(name for name in difference.policy_only if name in self._groups)
        anew = [name for name in (*difference.added, *difference.changed) if name not in running_on]
        # One that exists although it counts as added was left by a reload that failed half-way.
        existing = [self._groups[name] for name in anew if name in self._groups]
        self.start((workers[name] for name in anew if name not in self._groups), handlers)
        to_start = self._stopped_for_switch.intersection((*difference.untouched, *running_on))
        await _carry_out(
            [
                *(self._change(group, workers[group.spec.name], handlers[group.spec.name]) for group in existing),
                *(self._remove(self._groups[name]) for name in difference.removed if name in self._groups),
                *(self._update_policy(self._groups[name], workers[name]) for name in running_on),
                *(self._start_after_switch(self._groups[name]) for name in to_start),
            ]
        )

    def on_database_down(self) -> None:
        """Log, in one entry for all, that the workers wait for the database."""
        self._log_for_waiting("workers.parked")

    def on_database_up(self, *, was_logged: bool = True) -> None:
        """Note that the database is back, and log it in one entry for all if the outage was logged."""
        self._up_since_s = self._clock.now_s()
        if was_logged:
            self._log_for_waiting("workers.resumed")

    def is_healthy(self) -> bool:
        """Return whether supervision itself works; the watchdog is fed only while it does."""
        return self._progress.is_healthy(self._instances(), now_s=self._clock.now_s(), is_up=self._database.is_up)

    def specs(self) -> dict[str, WorkerSpec]:
        """Return the configuration by which each worker really runs, by name."""
        return {name: group.spec for name, group in self._groups.items()}

    def counts(self) -> tuple[int, int]:
        """Return how many workers there are, and how many instances of them."""
        return len(self._groups), sum(len(group.instances) for group in self._groups.values())

    def stopped_for_switch(self) -> list[str]:
        """Return the workers that are stopped until a reload has changed the database connection, or another does."""
        return sorted(self._stopped_for_switch)

    def paused(self) -> int:
        """Return how many workers are paused, or about to be."""
        return sum(group.desired_state is DesiredState.PAUSED for group in self._groups.values())

    def unhealthy(self) -> dict[str, str]:
        """Return the workers that do not run although they should, with their state."""
        states = ((instance.spec.name, instance.state) for instance in self._instances())
        return {name: state.value for name, state in states if state in UNHEALTHY}

    def status(self) -> list[dict[str, Any]]:
        """Return one row for each worker, of values for JSON."""
        return [worker_row(group, self._clock) for group in self._groups.values()]

    def _group(self, name: str) -> WorkerGroup:
        if (group := self._groups.get(name)) is None:
            raise UnknownWorker.suggesting(self._groups, name)
        return group

    @asynccontextmanager
    async def _exclusively(self, group: WorkerGroup) -> AsyncIterator[WorkerGroup]:
        """Wait until no other order for this worker is being carried out, and make sure that it still exists."""
        name = group.spec.name
        async with group.lock:
            if self._groups.get(name) is not group:
                raise UnknownWorker.suggesting(self._groups, name)
            yield group

    def _refuse_if_stopping(self) -> None:
        if self._is_stopping:
            raise OrderRefused("the daemon is stopping")

    def _refuse_start(self, name: str) -> None:
        self._refuse_if_stopping()
        if name in self._stopped_for_switch:
            raise OrderRefused(
                f"the worker {name!r} is stopped while the database connection is changed; the next reload starts it"
            )

    def _start_instances(self, group: WorkerGroup, *, log_at_debug: bool = False) -> None:
        if not self._is_stopping and group.spec.name not in self._stopped_for_switch:
            group.start_instances(log_at_debug=log_at_debug)

    async def _replace_instances(self, group: WorkerGroup, reason: str) -> None:
        await group.stop_instances(reason)
        self._start_instances(group)

    async def _change(self, group: WorkerGroup, spec: WorkerSpec, handler: Any) -> None:
        async with self._exclusively(group):
            self._stopped_for_switch.discard(spec.name)
            group.spec, group.handler = spec, handler
            await self._replace_instances(group, "its configuration changed")

    async def _update_policy(self, group: WorkerGroup, spec: WorkerSpec) -> None:
        async with self._exclusively(group):
            group.update_policy(spec)

    async def _remove(self, group: WorkerGroup) -> None:
        async with self._exclusively(group):
            name = group.spec.name
            await group.stop_instances("it is no longer configured")
            group.decline_leases()
            self._stopped_for_switch.discard(name)
            del self._groups[name]
            if alive := [instance for instance in group.instances if instance.has_live_runs]:
                self._removed_but_alive[name] = alive

    async def _stop_for_switch(self, group: WorkerGroup, reason: str) -> None:
        async with self._exclusively(group):
            self._stopped_for_switch.add(group.spec.name)
            await group.stop_instances(reason)
            group.decline_leases()

    async def _start_after_switch(self, group: WorkerGroup) -> None:
        async with self._exclusively(group):
            self._stopped_for_switch.discard(group.spec.name)
            await self._replace_instances(group, "the database connection changed")

    async def _resume_halted(self, group: WorkerGroup) -> None:
        with suppress(UnknownWorker):
            async with self._exclusively(group):
                if not self._is_stopping and group.spec.name not in self._stopped_for_switch:
                    group.resume_halted()

    def _instances(self) -> Iterator[WorkerInstance]:
        for group in self._groups.values():
            yield from group.instances

    def _all_instances(self) -> list[WorkerInstance]:
        """Return the instances of all workers, those of removed ones with live runs included."""
        return [*self._instances(), *(each for alive in self._removed_but_alive.values() for each in alive)]

    def _log_for_waiting(self, event: str) -> None:
        """Log, in one entry, something about all workers that are to run and may need the database."""
        # What happens to workers with a lease is logged of the leases.
        waiting = [
            instance
            for instance in self._instances()
            if instance.desired_state is DesiredState.RUNNING and instance.state not in FINAL and instance.lease is None
        ]
        kinds = {instance.spec.name: kind_of(instance.spec).name for instance in waiting}
        counts: dict[str, Any] = dict(Counter(kinds.values()))
        if len(waiting) > len(kinds):
            counts["instances"] = len(waiting)
        if waiting:
            log_event(event, workers=len(kinds), **counts)

    def _wake_parked_when_up(self) -> None:
        """Have all parked instances woken once the database is up: one task waits for it, not thousands."""
        if self._database_wait is None or self._database_wait.done():
            self._database_wait = self._tasks.start(self._wake_parked(), name="workers wait for the database")

    async def _wake_parked(self) -> None:
        await self._database.wait_until_up()
        for instance in self._instances():
            if instance.state is InstanceState.PARKED:
                instance.wakeup.wake()

    def _report_lease_overrun(self, name: str, is_lost: bool) -> None:
        # During the stop other workers may still need their time; the lease is held as long as it is trusted.
        if not self._is_stopping or is_lost:
            self._on_lease_overrun(name)

    def _on_crash(self, task: str, error: BaseException) -> None:
        log_event("daemon.failed", exc=error, task=task)
        self._progress.mark_failed()


async def _carry_out(orders: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Carry out orders for different workers at the same time; the failure of one leaves no other half done."""
    results = await asyncio.gather(*orders, return_exceptions=True)
    if errors := [result for result in results if isinstance(result, Exception)]:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("several workers could not be changed", errors)


async def _wait_for_all(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
