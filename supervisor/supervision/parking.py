"""The workers and an outage: who waits for the database, until when, and one entry for all of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event
from supervisor.supervision.state import FINAL, State, Wanted
from supervisor.supervision.status import kind_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from supervisor.clock import Clock
    from supervisor.supervision.outage import DatabaseStatus
    from supervisor.supervision.runner import Runner
    from supervisor.tasks import BackgroundTasks


class Parking:
    """Lets the parked go on when the database is back.

    Attributes:
        up_since_s: When the database last came back; -inf: it has not been away.
    """

    def __init__(
        self, runners: Callable[[], Iterable[Runner]], *, outages: DatabaseStatus, clock: Clock, tasks: BackgroundTasks
    ) -> None:
        self.up_since_s = float("-inf")
        self._runners = runners
        self._outages = outages
        self._clock = clock
        self._tasks = tasks
        self._watch: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Wait for the database, for instances that have parked; an outage too short to be told ends for them too."""
        if self._watch is None or self._watch.done():
            self._watch = self._tasks.start(self._wait_for_database(), name="workers wait for the database")

    def tell(self, event: str) -> None:
        """Say, in one entry for all, what the workers that are to run do."""
        # What becomes of those with a lease is told of the leases.
        concerned = [
            r for r in self._runners() if r.wanted is Wanted.RUNNING and r.state not in FINAL and r.tenancy is None
        ]
        kinds = {runner.spec.name: kind_of(runner.spec) for runner in concerned}
        counts: dict[str, Any] = dict(Counter(kinds.values()))
        if len(concerned) > len(kinds):
            counts["instances"] = len(concerned)
        if concerned:
            log_event(event, workers=len(kinds), **counts)

    def let_go(self) -> None:
        """Let the parked go on: the database is back."""
        self.up_since_s = self._clock.now_s()
        for runner in self._runners():
            if runner.state is State.PARKED:
                runner.attention.wake()

    async def _wait_for_database(self) -> None:
        await self._outages.wait_until_up()
        self.let_go()
