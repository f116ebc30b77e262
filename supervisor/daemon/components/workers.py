"""The workers as a component: their supervisor, and the requests of clients for one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.diff import diff_configs
from supervisor.daemon.component import Component, Prepared
from supervisor.errors import SupervisorError
from supervisor.supervision.supervisor import Supervisor
from supervisor.workers.kinds import work_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.config.diff import ConfigDiff
    from supervisor.config.model import Config, WorkerSpec
    from supervisor.daemon.components.node import NodeComponent
    from supervisor.database.database import Database
    from supervisor.database.error_class import Failure
    from supervisor.errors import WorkerExhausted
    from supervisor.runtime import Runtime

# Draining the node, and what the supervisor adds to the longest stop_timeout.
_STOP_MARGIN_S = 20.0


class WorkersNotStarted(SupervisorError):
    """The workers have not been started yet."""

    def __init__(self) -> None:
        super().__init__("the workers have not been started yet")


class WorkersComponent(Component):
    """Owns the supervisor, and is the observer of the database for it.

    Args:
        config: The configuration in force.
        runtime: Services.
        database: Returns the database.
        node: Returns what workers with a lease need.
        handlers: Returns the function of each worker.
        on_exhausted: Called with the error of a worker that ends the daemon.
        on_overrun: Called with the name of a worker that still runs without its lease.
        on_status: Called when the status may have changed.
        on_step: Shows what the start does.
    """

    name = "workers"

    def __init__(
        self, config: Config, *, runtime: Runtime, database: Callable[[], Database], node: Callable[[], NodeComponent],
        handlers: Callable[[], Mapping[str, Any]], on_exhausted: Callable[[WorkerExhausted], None],
        on_overrun: Callable[[str], None], on_status: Callable[[], object], on_step: Callable[[str], object],
    ) -> None:  # fmt: skip
        self._config = config
        self._runtime = runtime
        self._database = database
        self._node = node
        self._handlers = handlers
        self._on_exhausted = on_exhausted
        self._on_overrun = on_overrun
        self._on_status = on_status
        self._on_step = on_step
        self._supervisor: Supervisor | None = None
        # Workers of a reload that failed while it was applied: whether they run as configured is not known.
        self._uncertain: frozenset[str] = frozenset()

    @property
    def stop_timeout_s(self) -> float:  # type: ignore[override]  # it depends on the configuration
        """The longest `stop_timeout`, and what the supervisor adds to it."""
        return max((spec.stop_timeout_s for spec in self._specs().values()), default=0.0) + _STOP_MARGIN_S

    async def start(self) -> None:
        """Start the workers."""
        self._on_step("Starting the workers")
        runtime, database = self._runtime, self._database()
        self._supervisor = Supervisor(
            work_factory=work_factory(runtime=runtime, database=database, cluster=self._node),
            database=database,
            runtime=runtime,
            on_exhausted=self._on_exhausted,
            on_lease_overrun=self._on_overrun,
        )
        self._supervisor.start(self._config.workers.values(), self._handlers())

    async def validate(self, old: Config, new: Config) -> Prepared:
        """Prepare the difference between the workers that there really are and those of a new configuration."""
        diff = self._difference(old, new)
        differing = {*diff.changed, *self._anew(diff, new)}
        changed = [name for name in new.workers if name in differing]
        names = {"added": diff.added, "changed": changed, "removed": diff.removed}
        changes = {key: ", ".join(each) for key, each in names.items() if each}

        async def apply() -> None:
            if self._supervisor is None:
                self._config = new  # the start uses it
            else:
                await self._apply(diff, new)

        return Prepared(apply=apply, changes=changes, is_empty=not changes)

    def in_force(self, config: Config) -> Config:
        """Return `config` with the workers that there really are."""
        return config._replace(workers=self._specs())

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - the workers' own limits are shorter
        """Stop the workers, with the node drained before: another node may take the leases as soon as they end."""
        await self._node().drain()
        if self._supervisor is not None:
            await self._supervisor.stop()
            if still_running := self._supervisor.holding_leases():
                # Its lease goes with the process: given back now, it would let another node run the worker, too.
                self._on_overrun(still_running[0])

    def is_healthy(self, now_s: float) -> bool:  # noqa: ARG002 - the supervisor has the same clock
        """Whether every instance moves on when it should."""
        return self._supervisor is None or self._supervisor.is_healthy()

    def degraded(self) -> str | None:
        """Return which workers do not run although they should."""
        unhealthy = self._supervisor.unhealthy() if self._supervisor is not None else {}
        if not unhealthy:
            return None
        count = self.counts()["workers"]
        first = [f"{name}: {state}" for name, state in list(unhealthy.items())[:3]]
        more = ["…"] if len(unhealthy) > len(first) else []
        noun, is_are = "worker" if count == 1 else "workers", "is" if len(unhealthy) == 1 else "are"
        return f"{len(unhealthy)} of {count} {noun} {is_are} down ({', '.join(first + more)})"

    def status(self) -> Mapping[str, object]:
        """Return one row for each worker."""
        return {"workers": self._supervisor.status() if self._supervisor is not None else []}

    def counts(self) -> dict[str, Any]:
        """Return how many workers there are, and instances where these are more."""
        workers, instances = self._supervisor.counts() if self._supervisor else (len(self._config.workers), 0)
        return {"workers": workers} | ({"instances": instances} if instances > workers else {})

    def stopped_for_switch(self) -> list[str]:
        """Return the workers that were stopped for another database connection, and that only a reload starts."""
        return self._supervisor.stopped_for_switch() if self._supervisor is not None else []

    def started_anew(self, old: Config, new: Config) -> list[str]:
        """Return the workers that a reload starts anew although their configuration may be the same."""
        return self._anew(self._difference(old, new), new)

    def _anew(self, diff: ConfigDiff, new: Config) -> list[str]:
        stopped = self.stopped_for_switch()
        if not stopped and not self._uncertain:
            return []
        continuing = {*diff.untouched, *diff.policy_only}.intersection(stopped)
        uncertain = self._uncertain.intersection(diff.changed)
        return [name for name in new.workers if name in continuing or name in uncertain]

    def summary(self) -> str:
        """Return a clause for people about workers that all do what they should."""
        counts = self.counts()
        noun = "worker" if counts["workers"] == 1 else "workers"
        paused = self._supervisor.paused() if self._supervisor is not None else 0
        if stopped := self.stopped_for_switch():
            running = counts["workers"] - len(stopped)
            return f"Running {running} of {counts['workers']} {noun}; stopped until a reload: {', '.join(stopped)}"
        many = f" ({counts['instances']} instances)" if "instances" in counts else ""
        return f"Running {counts['workers']} {noun}{many}{f', {paused} of them paused' if paused else ''}"

    async def pause(self, name: str) -> None:
        """Pause a worker.

        Raises:
            SupervisorError: There is no such worker, or there are none yet.
        """
        await self._started.pause(name)

    async def resume(self, name: str) -> None:
        """Let a paused worker run again.

        Raises:
            SupervisorError: There is no such worker, or there are none yet.
        """
        await self._started.resume(name)

    async def restart(self, name: str) -> None:
        """Stop a worker and start it anew.

        Raises:
            SupervisorError: There is no such worker, or there are none yet.
        """
        supervisor = self._started
        self._node().touch_config_time({name} & self._specs().keys())
        await supervisor.restart(name)

    def force_stop(self) -> None:
        """Cancel what still runs."""
        if self._supervisor is not None:
            self._supervisor.force_stop()

    def on_projection_changed(self, name: str) -> None:
        """Let the instances of a projection go on that are halted."""
        if self._supervisor is not None:
            self._supervisor.resume_halted(name)

    async def stop_leased(self, reason: str) -> None:
        """End every worker with a lease; the end of the reload starts those again that are to run."""
        if self._supervisor is not None:
            await self._supervisor.stop_leased_workers(reason)

    def on_down(self, failure: Failure, *, announced: bool) -> None:  # noqa: ARG002 - the monitor has logged why
        """Log that the workers wait for the database."""
        if self._supervisor is not None and announced:
            self._supervisor.on_database_down()
        self._on_status()

    def on_up(self, *, announced: bool) -> None:
        """Log that the workers go on."""
        if self._supervisor is not None:
            self._supervisor.on_database_up(was_logged=announced)
        self._on_status()

    def on_stable(self) -> None:
        """Log that the workers go on after an outage that came and went."""
        if self._supervisor is not None:
            self._supervisor.on_database_up()
        self._on_status()

    def on_status(self) -> None:
        """Show the new status of the connection."""
        self._on_status()

    @property
    def _started(self) -> Supervisor:
        if self._supervisor is None:
            raise WorkersNotStarted
        return self._supervisor

    def _specs(self) -> Mapping[str, WorkerSpec]:
        return self._config.workers if self._supervisor is None else self._supervisor.specs()

    def _difference(self, old: Config, new: Config) -> ConfigDiff:
        diff = diff_configs(old._replace(workers=self._specs()), new)
        if not self._uncertain:
            return diff
        unsure = self._uncertain.difference(diff.added, diff.removed)
        changed = unsure.union(diff.changed)
        return diff._replace(
            changed=tuple(name for name in new.workers if name in changed),
            policy_only=tuple(name for name in diff.policy_only if name not in unsure),
            untouched=tuple(name for name in diff.untouched if name not in unsure),
        )

    async def _apply(self, diff: ConfigDiff, new: Config) -> None:
        supervisor = self._started
        self._node().touch_config_time((*diff.added, *diff.changed))
        self._uncertain |= {*diff.added, *diff.changed, *diff.removed}
        await supervisor.apply(diff, workers=new.workers, handlers=self._handlers())
        self._config, self._uncertain = new, frozenset()
