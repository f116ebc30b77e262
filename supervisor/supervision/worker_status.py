"""The state of the workers as values for JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from supervisor.config.kinds import kind_of
from supervisor.escaping import isoformat
from supervisor.supervision.states import InstanceState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from supervisor.clock import Clock
    from supervisor.leases.lease import LeaseHandle
    from supervisor.supervision.worker_group import WorkerGroup

# A worker with several instances has the state of the one that most needs attention.
STATE_PRECEDENCE = (
    InstanceState.EXHAUSTED,
    InstanceState.FAILED,
    InstanceState.ABANDONED,
    InstanceState.WAITING,
    InstanceState.PARKED,
    InstanceState.STOPPING,
    InstanceState.RUNNING,
    InstanceState.SCHEDULED,
    InstanceState.STANDBY,
    InstanceState.PAUSED,
    InstanceState.FINISHED,
    InstanceState.STOPPED,
)


def worker_row(group: WorkerGroup, clock: Clock) -> dict[str, Any]:
    """Return one worker as a flat mapping of JSON values; times are ISO 8601, durations seconds."""
    instances = group.instances
    states = {instance.state for instance in instances}
    stats = [instance.stats for instance in instances]
    now_s, wall = clock.now_s(), clock.wall_time()
    running = [run for instance in instances if (run := instance.current_run) is not None and not run.is_done]
    next_run_s = min((at_s for instance in instances if (at_s := instance.next_run_s) is not None), default=None)
    newest = max(stats, key=lambda each: each.failed_s, default=None)
    return {
        "name": group.spec.name,
        "kind": kind_of(group.spec).name,
        "wanted": group.desired_state.value,
        "state": next((state.value for state in STATE_PRECEDENCE if state in states), InstanceState.STOPPED.value),
        "replicas": len(instances),
        "running": len(running),
        "runs": sum(each.runs for each in stats),
        "restarts": sum(each.restarts for each in stats),
        "failures": sum(each.failures for each in stats),
        "last_error": None if newest is None else newest.last_error,
        "last_started": isoformat(_latest(each.last_started for each in stats)),
        "last_ended": isoformat(_latest(each.last_ended for each in stats)),
        "next_run": isoformat(_wall_time_at(next_run_s, now_s, wall)),
        "uptime_s": round(max((now_s - run.started_s for run in running), default=0.0), 3),
        "leases": [_lease_row(instance.lease.handle) for instance in instances if instance.lease is not None],
        "abandoned": sum(1 for instance in instances for run in instance.abandoned_runs if not run.is_done),
    }


def _lease_row(handle: LeaseHandle) -> dict[str, Any]:
    row = handle.describe()
    holder = row.get("holder")
    if holder is not None:
        row["holder"] = {**holder, "since": isoformat(holder.get("since"))}
    return row


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _wall_time_at(at_s: float | None, now_s: float, wall: datetime) -> datetime | None:
    if at_s is None:
        return None
    try:
        return wall + timedelta(seconds=at_s - now_s)
    except OverflowError:
        # A cron expression that never comes true.
        return None
