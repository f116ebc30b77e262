"""What all runners of a supervisor share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.errors import WorkerExhausted
    from supervisor.supervision.alarm import Alarm
    from supervisor.supervision.outage import DatabaseStatus
    from supervisor.supervision.runner import Runner
    from supervisor.tasks import BackgroundTasks


@dataclass(frozen=True, slots=True)
class Floor:
    """The ground that all runners stand on.

    Attributes:
        clock: Time.
        rng: Chance, for jitter.
        tasks: Where tasks start.
        alarm: Deadlines.
        outages: The database.
        up_since_s: When the database last came back; -inf: it has not been away.
        on_parked: Called when an instance begins to wait for the database.
        on_exhausted: Called when a worker is exhausted whose configuration says that the daemon ends with it.
        on_outlived: Called when a run under a lease outlives its deadlines: the lease cannot be given back, and
            another node may take it any moment.
    """

    clock: Clock
    rng: Random
    tasks: BackgroundTasks
    alarm: Alarm
    outages: DatabaseStatus
    up_since_s: Callable[[], float]
    on_parked: Callable[[], None]
    on_exhausted: Callable[[WorkerExhausted], None]
    on_outlived: Callable[[Runner], None]
