"""The state of the workers as values for JSON."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from supervisor.config.model import Periodic, Projection, Service
from supervisor.supervision.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.leases.lease import LeaseHandle
    from supervisor.supervision.crew import Crew
    from supervisor.supervision.runner import Runner

# Of several replicas, the one that most needs to be seen speaks for the worker.
_MOST_TELLING = (
    State.EXHAUSTED,
    State.FAILED,
    State.ABANDONED,
    State.WAITING,
    State.PARKED,
    State.STOPPING,
    State.RUNNING,
    State.SCHEDULED,
    State.STANDBY,
    State.PAUSED,
    State.FINISHED,
    State.STOPPED,
)


def kind_of(spec: WorkerSpec) -> str:
    """Return the kind's name as the configuration spells it."""
    match spec.kind:
        case Service():
            return "service"
        case Periodic():
            return "periodic"
        case Projection():
            return "projection"


def census_of(runners: Iterable[Runner]) -> dict[str, int]:
    """Return how many instances are in each state."""
    return dict(Counter(runner.state.value for runner in runners))


def row_of(crew: Crew, clock: Clock) -> dict[str, Any]:
    """Return one worker as a flat mapping of JSON values; times are ISO 8601, durations seconds."""
    runners = crew.runners
    states = {runner.state for runner in runners}
    records = [runner.record for runner in runners]
    now_s, wall = clock.now_s(), clock.wall_time()
    running = [runner.run for runner in runners if runner.run is not None and not runner.run.is_done]
    last_began = _latest(record.last_began for record in records)
    next_run_s = min((at_s for runner in runners if (at_s := runner.next_run_s) is not None), default=None)
    newest = max(records, key=lambda record: record.failed_s, default=None)
    return {
        "name": crew.spec.name,
        "kind": kind_of(crew.spec),
        "wanted": crew.wanted.value,
        "state": next((state.value for state in _MOST_TELLING if state in states), State.STOPPED.value),
        "replicas": len(runners),
        "running": len(running),
        "runs": sum(record.runs for record in records),
        "restarts": sum(record.restarts for record in records),
        "failures": sum(record.failures for record in records),
        "last_error": None if newest is None else newest.last_error,
        "last_started": _iso(last_began),
        "last_ended": _iso(_latest(record.last_ended for record in records)),
        "next_run": _iso(_at(next_run_s, now_s, wall)),
        "uptime_s": round(max((now_s - run.began_s for run in running), default=0.0), 3),
        "leases": [_lease(runner.tenancy.tenure) for runner in runners if runner.tenancy is not None],
        "abandoned": sum(1 for runner in runners for run in runner.left_behind if not run.is_done),
    }


def _lease(tenure: LeaseHandle) -> dict[str, Any]:
    row = tenure.describe()
    holder = row.get("holder")
    if holder is not None:
        row["holder"] = {**holder, "since": _iso(holder.get("since"))}
    return row


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _at(at_s: float | None, now_s: float, wall: datetime) -> datetime | None:
    if at_s is None:
        return None
    try:
        return wall + timedelta(seconds=at_s - now_s)
    except OverflowError:
        # A cron expression that never comes true.
        return None


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")
