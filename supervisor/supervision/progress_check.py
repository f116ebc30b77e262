"""Whether supervision itself works: every instance makes progress when it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.supervision.states import FINAL, InstanceState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.supervision.instance import WorkerInstance

# A loop that was blocked, or a machine that was short of everything, is late without being broken.
TOLERANCE_S = 30.0


class ProgressCheck:
    """Finds stuck instances, wakes them, and remembers which stay stuck.

    Heartbeats that go on while periodic jobs have stopped would be worse than no heartbeat.
    """

    def __init__(self) -> None:
        self._stuck_since_s: dict[WorkerInstance, float] = {}
        self._has_failed = False

    def mark_failed(self) -> None:
        """Note that an instance could not be brought back: from now on supervision is not healthy."""
        self._has_failed = True

    def is_healthy(self, instances: Iterable[WorkerInstance], *, now_s: float, is_up: bool) -> bool:
        """Return whether no instance is stuck for longer than the tolerance; each stuck one is woken."""
        stuck = {instance for instance in instances if is_stuck(instance, now_s=now_s, is_up=is_up)}
        for instance in stuck:
            instance.wakeup.wake()
        self._stuck_since_s = {instance: self._stuck_since_s.get(instance, now_s) for instance in stuck}
        return not self._has_failed and all(now_s - at_s < TOLERANCE_S for at_s in self._stuck_since_s.values())


def is_stuck(instance: WorkerInstance, *, now_s: float, is_up: bool) -> bool:
    """Whether an instance should do its next step, and does not."""
    if instance.state in FINAL:
        return False
    deadline_s = instance.wakeup.deadline_s
    if deadline_s is not None and deadline_s < now_s:
        return True
    match instance.state:
        case InstanceState.SCHEDULED | InstanceState.WAITING | InstanceState.STOPPING:
            return deadline_s is None
        case InstanceState.PARKED:
            return is_up and deadline_s is None
        case InstanceState.RUNNING:
            is_lost = instance.lease is not None and instance.lease.is_lost
            return is_lost or instance.current_run is None or instance.current_run.is_done
        case InstanceState.STANDBY:
            return instance.lease is None or instance.lease.may_run
        case _:
            return False
