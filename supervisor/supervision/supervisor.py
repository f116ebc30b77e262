"""The owner of all workers: starts them, passes orders on, applies a reload, stops them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.journal import log_event
from supervisor.supervision.alarm import Alarm
from supervisor.supervision.crew import Crew, UnknownWorker
from supervisor.supervision.floor import Floor
from supervisor.supervision.parking import Parking
from supervisor.supervision.soundness import Soundness
from supervisor.supervision.staffing import Staffing
from supervisor.supervision.state import ILL, State, Wanted
from supervisor.supervision.status import census_of, row_of
from supervisor.supervision.stopping import GRACE_S
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.difference import ConfigDiff
    from supervisor.config.model import WorkerSpec
    from supervisor.errors import WorkerExhausted
    from supervisor.supervision.outage import DatabaseStatus
    from supervisor.supervision.runner import Runner
    from supervisor.supervision.staffing import Hire

# So many of a batch say their entry aloud; the rest say it at debug level.
LOUD = 20
# Every stop ends by its own deadlines; this is the net under them.
_NET_S = 5.0
_DAEMON_STOPS = "the daemon stops"
_MOVED = "the database connection changed"


class Supervisor:
    """All workers of the daemon, by name; a service's replicas are instances of their own.

    Args:
        hire: Makes the work of one instance from its configuration and the user's function.
        outages: The database.
        clock: Time.
        rng: Chance, for jitter.
        on_exhausted: Called once a worker is exhausted whose configuration says that the daemon ends with it.
        on_outlived: Called with the name of a worker with a lease whose run outlives its deadlines: the process has
            to end before another node runs the worker. Not during the stop, unless the lease is lost: who stops
            looks at `unreleasable()` itself.
    """

    def __init__(
        self,
        *,
        hire: Hire,
        outages: DatabaseStatus,
        clock: Clock,
        rng: Random,
        on_exhausted: Callable[[WorkerExhausted], None],
        on_outlived: Callable[[str], None],
    ) -> None:
        self._outages = outages
        self._clock = clock
        self._tasks = BackgroundTasks(self._crashed)
        self._alarm = Alarm(clock=clock, tasks=self._tasks)
        self._parking = Parking(self._runners, outages=outages, clock=clock, tasks=self._tasks)
        self._floor = Floor(
            clock=clock,
            rng=rng,
            tasks=self._tasks,
            alarm=self._alarm,
            outages=outages,
            up_since_s=lambda: self._parking.up_since_s,
            on_parked=self._parking.watch,
            on_exhausted=on_exhausted,
            on_outlived=self._outlived,
        )
        self._on_outlived = on_outlived
        self._crews: dict[str, Crew] = {}
        # Instances of workers that were removed, whose runs would not end.
        self._ghosts: dict[str, list[Runner]] = {}
        # Workers that the end of the reload starts again.
        self._let_go: set[str] = set()
        self._soundness = Soundness()
        self._staffing = Staffing(hire, self._floor, self._soundness)
        self._is_stopping = False

    # The life of all

    def start(self, specs: Iterable[WorkerSpec], functions: Mapping[str, Any]) -> None:
        """Start workers; `functions` holds the user's function of each by the worker's name."""
        for said, spec in enumerate(specs):
            crew = self._crews[spec.name] = Crew(spec, functions[spec.name], Wanted.RUNNING)
            crew.runners = self._ghosts.pop(spec.name, [])
            self._staff(crew, is_quiet=said >= LOUD)

    async def stop(self) -> list[str]:
        """Stop all workers, and return the names of those that did not end and were left behind.

        Bounded by the longest `stop_timeout` plus a few seconds, or by `hurry()`.
        """
        self._is_stopping = True
        living = {task for crew in self._crews.values() for task in crew.tasks if not task.done()}
        limit_s = max((crew.spec.stop_timeout_s for crew in self._crews.values()), default=0.0) + GRACE_S + _NET_S
        for said, crew in enumerate(self._crews.values()):
            crew.order_stop(_DAEMON_STOPS, is_quiet=said >= LOUD)
            crew.give_up_leases()
        if living:
            ended = self._tasks.start(_all_done(living), name="workers end")
            await done_within(ended, limit_s, clock=self._clock)
        for said, crew in enumerate(self._crews.values()):
            crew.tell("worker.stopped", is_quiet=said >= LOUD, reason=_DAEMON_STOPS)
        self._alarm.close()
        self._tasks.cancel_all()
        return sorted({runner.spec.name for runner in self._everybody() if runner.lives_on})

    def unreleasable(self) -> list[str]:
        """Return the workers whose leases cannot be given back, because their runs would not end."""
        left = (runner for runner in self._everybody() if runner.tenancy is not None and runner.lives_on)
        return sorted({runner.spec.name for runner in left})

    def hurry(self) -> None:
        """Cancel what still runs, now; only a short grace is left."""
        for runner in self._runners():
            runner.hurry()

    # Orders for one worker

    def pause(self, name: str) -> None:
        """Let a worker end what it does, and not run again until it is resumed.

        Raises:
            UnknownWorker: There is no such worker; nothing has happened.
        """
        self._order(name, Wanted.PAUSED)

    def resume(self, name: str) -> None:
        """Let a paused worker run again.

        Raises:
            UnknownWorker: There is no such worker; nothing has happened.
        """
        self._order(name, Wanted.RUNNING)

    async def restart(self, name: str) -> None:
        """Stop a worker and start it with an empty history, whatever its state was, and return then.

        Raises:
            UnknownWorker: There is no such worker; nothing has happened.
        """
        crew = self._crew(name)
        crew.wanted = Wanted.RUNNING
        await self._replace(crew, reason="it is restarted")

    def revive(self, name: str) -> None:
        """Let the instances of a projection go on that stand still at an event, or stand aside: somebody has acted.

        Args:
            name: The projection's; empty: any. One that is not here, or has nothing to revive, is nobody's mistake.
        """
        crews = [crew for crew in self._crews.values() if name in ("", crew.spec.name)]
        for crew in crews if not self._is_stopping else ():
            for index, runner in enumerate(crew.runners):
                if runner.state is State.FAILED and runner.tenancy is not None and runner.tenancy.stands_still:
                    self._staffing.refill(crew, index)

    async def let_go_of_leases(self, reason: str) -> None:
        """End every worker with a lease and give the leases up; `apply` starts those again that are to run."""
        crews = [crew for crew in self._crews.values() if crew.has_leases]
        self._let_go |= {crew.spec.name for crew in crews}
        async with asyncio.TaskGroup() as group:
            for crew in crews:
                crew.change += 1
                group.create_task(self._end(crew, reason))
        for crew in crews:
            crew.give_up_leases()

    async def apply(
        self, difference: ConfigDiff, *, workers: Mapping[str, WorkerSpec], functions: Mapping[str, Any]
    ) -> None:
        """Apply the difference between two configurations; the other workers do not notice.

        All changes go on at the same time, each bounded by its worker's own deadlines. Returns when
        the last one is done. A paused worker stays paused.

        Args:
            difference: What has changed.
            workers: The new configuration's.
            functions: The user's function of each added or changed worker, by the worker's name.
        """
        for name in difference.policy_only:
            self._crew(name).retune(workers[name])
        self.start((workers[name] for name in difference.added), functions)
        let_go, self._let_go = self._let_go, set()
        async with asyncio.TaskGroup() as group:
            for name in let_go.intersection({*difference.untouched, *difference.policy_only}):
                group.create_task(self._replace(self._crew(name), reason=_MOVED))
            for name in difference.removed:
                group.create_task(self._remove(self._crew(name)))
            for name in difference.changed:
                if name not in difference.policy_only:
                    crew = self._crew(name)
                    crew.spec, crew.function = workers[name], functions[name]
                    group.create_task(self._replace(crew, reason="its configuration changed"))

    # The database

    def database_went_down(self) -> None:
        """Tell, in one entry for all, that the workers wait for the database."""
        self._parking.tell("workers.parked")

    def database_came_back(self, *, told: bool = True) -> None:
        """Let the workers go on, and tell it in one entry for all unless the outage itself was not told."""
        if told:
            self._parking.tell("workers.resumed")
        self._parking.let_go()

    # What goes on

    def specs(self) -> dict[str, WorkerSpec]:
        """Return the configuration by which each worker really runs, by name."""
        return {name: crew.spec for name, crew in self._crews.items()}

    def is_sound(self) -> bool:
        """Whether supervision itself works; the watchdog is fed only while it does."""
        return self._soundness.is_sound(self._runners(), now_s=self._clock.now_s(), is_up=self._outages.is_up)

    def census(self) -> dict[str, int]:
        """Return how many instances are in each state."""
        return census_of(self._runners())

    def counts(self) -> tuple[int, int]:
        """Return how many workers there are, and how many instances of them."""
        return len(self._crews), sum(len(crew.runners) for crew in self._crews.values())

    def paused(self) -> int:
        """Return how many workers are paused, or about to be."""
        return sum(crew.wanted is Wanted.PAUSED for crew in self._crews.values())

    def ill(self) -> dict[str, str]:
        """Return the workers that do not run although they should, with their state."""
        states = ((crew.spec.name, runner.state) for crew in self._crews.values() for runner in crew.runners)
        return {name: state.value for name, state in states if state in ILL}

    def status(self) -> list[dict[str, Any]]:
        """Return one row for each worker, of values for JSON."""
        return [row_of(crew, self._clock) for crew in self._crews.values()]

    def _runners(self) -> Iterator[Runner]:
        for crew in self._crews.values():
            yield from crew.runners

    def _everybody(self) -> list[Runner]:
        return [*self._runners(), *(runner for ghosts in self._ghosts.values() for runner in ghosts)]

    def _crew(self, name: str) -> Crew:
        if (crew := self._crews.get(name)) is None:
            raise UnknownWorker.among(self._crews, name)
        return crew

    def _order(self, name: str, wanted: Wanted) -> None:
        crew = self._crew(name)
        if crew.wanted is not wanted:
            crew.wanted = wanted
            crew.tell("worker.paused" if wanted is Wanted.PAUSED else "worker.unpaused")
        for runner in crew.runners:
            runner.order(wanted, reason="it is paused", is_quiet=not crew.is_alone)

    def _staff(self, crew: Crew, *, is_quiet: bool = False) -> None:
        if not self._is_stopping:
            self._staffing.fill(crew, is_quiet=is_quiet)

    async def _replace(self, crew: Crew, *, reason: str) -> None:
        crew.change += 1
        change = crew.change
        await self._end(crew, reason)
        # Whoever came later stops and starts the same instances again, with the newest configuration.
        if change == crew.change:
            self._staff(crew)

    async def _remove(self, crew: Crew) -> None:
        crew.change += 1
        await self._end(crew, "it is no longer configured")
        crew.give_up_leases()
        if self._crews.get(crew.spec.name) is crew:
            del self._crews[crew.spec.name]
            if ghosts := [runner for runner in crew.runners if runner.lives_on]:
                self._ghosts[crew.spec.name] = ghosts

    async def _end(self, crew: Crew, reason: str) -> None:
        crew.order_stop(reason)
        if crew.tasks:
            await asyncio.wait(crew.tasks)
        crew.tell("worker.stopped", reason=reason)

    def _outlived(self, runner: Runner) -> None:
        # During the stop the others may still need their time; the lease is held as long as it is trusted.
        if not self._is_stopping or (runner.tenancy is not None and runner.tenancy.is_lost):
            self._on_outlived(runner.spec.name)

    def _crashed(self, task: str, error: BaseException) -> None:
        log_event("daemon.failed", exc=error, task=task)
        self._soundness.lose()


async def _all_done(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
