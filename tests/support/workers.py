"""Workers that do what a test wrote down, a database that is a switch, and a supervisor around them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.clock import FakeClock, MaxJitterRandom, settle
from support.scripted_lease import ScriptedLease

from supervisor.config.diff import diff_configs
from supervisor.config.model import (
    Config,
    DaemonConfig,
    DatabaseConfig,
    Dsn,
    Every,
    LogConfig,
    Periodic,
    Projection,
    Server,
    Service,
    WorkerSpec,
)
from supervisor.events.shard import lease_name
from supervisor.journal import observe
from supervisor.runtime import Runtime
from supervisor.supervision.supervisor import Supervisor
from supervisor.workers.kinds import work_factory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from supervisor.errors import WorkerExhausted
    from supervisor.stop_signal import StopSignal
    from supervisor.supervision.ports import Work
    from supervisor.workers.context import Context


class ScriptedWorker:
    """A worker whose runs follow a script; after its end it stays until it is cancelled.

    A step is an exception or its class (raised), None (returns), or a coroutine function of the
    context. `runs` counts the runs begun.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.runs = 0
        self.contexts: list[Context] = []

    async def __call__(self, ctx: Context) -> Any:
        self.runs += 1
        self.contexts.append(ctx)
        if not self.script:
            await forever()
        step = self.script.pop(0)
        if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            raise step
        if isinstance(step, Callable):  # type: ignore[arg-type]
            return await step(ctx)
        return step


async def forever(_: Context | None = None) -> None:
    """Wait for the end, like a service without work."""
    await asyncio.get_running_loop().create_future()


class SwitchedDatabase:
    """A database that is up or down as the test says; it explains the errors of the kinds named."""

    def __init__(self, *explained: type[BaseException]) -> None:
        self.explained = explained or (ConnectionError,)
        self.asked = 0
        self._up = asyncio.Event()
        self._up.set()

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    def go_down(self) -> None:
        self._up.clear()

    def come_back(self) -> None:
        self._up.set()

    async def wait_until_up(self) -> None:
        await self._up.wait()

    async def is_outage_error(self, exc: BaseException) -> bool:
        self.asked += 1
        return isinstance(exc, self.explained)

    def pool_for(self, stop: StopSignal) -> Any:
        raise NotImplementedError("these workers do not use the database")


def service(name: str = "mail", *, replicas: int = 1, **changes: Any) -> WorkerSpec:
    """Return a service's configuration."""
    return WorkerSpec(name=name, run="m:f", kind=Service(replicas=replicas), **changes)


def periodic(name: str = "tidy", *, every_s: float = 30.0, immediate: bool = True, **changes: Any) -> WorkerSpec:
    """Return a periodic worker's configuration."""
    return WorkerSpec(name=name, run="m:f", kind=Periodic(Every(every_s), immediate=immediate), **changes)


def projection(name: str = "view", *, shards: int = 1, **changes: Any) -> WorkerSpec:
    """Return a projection's configuration."""
    return WorkerSpec(name=name, run="m:f", kind=Projection(shards=shards), singleton=True, **changes)


class ScriptedProjection:
    """The work of a projection's shard whose runs follow a script, as those of a `ScriptedWorker` do."""

    def __init__(self, function: ScriptedWorker, lease_handle: ScriptedLease) -> None:
        self.schedule = None
        self.lease_handle = lease_handle
        self._function = function

    async def run(self, stop: StopSignal) -> None:  # noqa: ARG002 - it is cancelled
        await self._function(self)  # type: ignore[arg-type]


class SupervisionHarness:
    """A supervisor with its workers, and what it said.

    Attributes:
        said: The entries of the journal so far: event, level, fields.
        exits: Why the daemon was asked to end.
        overruns: The workers whose run did not end by its deadline under a lease, once per report.
        leases: The leases of the workers, by name.
    """

    def __init__(self, *, clock: FakeClock, database: SwitchedDatabase) -> None:
        self.clock = clock
        self.database = database
        self.said: list[tuple[str, int, dict[str, Any]]] = []
        self.exits: list[WorkerExhausted] = []
        self.overruns: list[str] = []
        self.leases: dict[str, ScriptedLease] = {}
        rng = MaxJitterRandom()
        runtime = Runtime(clock=clock, rng=rng, tasks=None, notifier=None, journal=None)  # type: ignore[arg-type]
        self._make_other_work = work_factory(runtime=runtime, database=database, cluster=lambda: self)
        self.supervisor = Supervisor(
            work_factory=self._make_work,
            database=database,
            runtime=runtime,
            on_exhausted=self.exits.append,
            on_lease_overrun=self.overruns.append,
        )

    def _make_work(self, spec: WorkerSpec, function: Any, index: int) -> Work:
        if isinstance(spec.kind, Projection):
            return ScriptedProjection(function, self.lease(lease_name(spec.name, index, spec.kind.shards)))
        return self._make_other_work(spec, function, index)

    @property
    def append_signal(self) -> Any:
        raise NotImplementedError("these workers read no events")

    @property
    def sharding(self) -> Any:
        raise NotImplementedError("these workers read no events")

    def lease(self, name: str) -> ScriptedLease:
        """Return the lease of this name, as a node would."""
        return self.leases.setdefault(name, ScriptedLease(name))

    def events(self, prefix: str = "worker", *, above_debug: bool = True) -> list[str]:
        """Return the names of the entries said so far."""
        lowest = 20 if above_debug else 0
        return [event for event, level, _ in self.said if event.startswith(prefix) and level >= lowest]

    def row(self, name: str) -> dict[str, Any]:
        """Return a worker's row of the status."""
        return next(row for row in self.supervisor.status() if row["name"] == name)

    def instances_by_state(self) -> dict[str, int]:
        """Return how many instances are in each state."""
        return dict(Counter(instance.state.value for instance in self.supervisor._instances()))

    def state(self, name: str) -> str:
        """Return a worker's state."""
        return str(self.row(name)["state"])


@asynccontextmanager
async def running(
    *workers: tuple[WorkerSpec, Any], clock: FakeClock | None = None, database: SwitchedDatabase | None = None
) -> AsyncIterator[SupervisionHarness]:
    """Run workers under a supervisor, on a clock that the test owns."""
    harness = SupervisionHarness(clock=clock or FakeClock(), database=database or SwitchedDatabase())
    unobserve = observe(lambda event, level, fields: harness.said.append((event, level, dict(fields))))
    try:
        harness.supervisor.start([spec for spec, _ in workers], {spec.name: function for spec, function in workers})
        await settle()
        yield harness
    finally:
        unobserve()
        harness.supervisor.force_stop()
        await ended(harness.supervisor.stop(), harness.clock)


def _config(*specs: WorkerSpec) -> Config:
    """Return a configuration of these workers."""
    return Config(
        path=Path("/etc/app.toml"),
        name="app",
        daemon=DaemonConfig(state_dir=Path("/var/lib/app"), control=Path("/run/app/control.sock")),
        log=LogConfig(),
        database=DatabaseConfig(target=Server(Dsn("x", redacted="x"), "here")),
        workers={spec.name: spec for spec in specs},
    )


async def reload(
    harness: SupervisionHarness, old: list[WorkerSpec], new: list[WorkerSpec], /, **functions: Any
) -> None:
    """Apply the difference between two configurations."""
    before, after = _config(*old), _config(*new)
    await harness.supervisor.apply(diff_configs(before, after), workers=after.workers, handlers=functions)
    await settle()


async def ended(work: Any, clock: FakeClock) -> Any:
    """Await `work` while time passes on a clock that the test owns."""
    task = asyncio.get_running_loop().create_task(work)
    await settle()
    for _ in range(100):
        if task.done():
            break
        await clock.jump(1.0)
    return await task
