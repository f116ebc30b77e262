"""Whether supervision itself works: no runner may stand still when it is its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.supervision.state import FINAL, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.supervision.runner import Runner

# A loop that was blocked, or a machine that was short of everything, is late without being broken.
TOLERANCE_S = 30.0


class Soundness:
    """Looks for runners that are late, wakes them, and remembers who stays late.

    Heartbeats that go on while periodic jobs have stopped would be worse than no heartbeat.
    """

    def __init__(self) -> None:
        self._late_since_s: dict[Runner, float] = {}
        self._is_lost = False

    def lose(self) -> None:
        """Note that a runner could not be brought back: from now on nothing is sound."""
        self._is_lost = True

    def is_sound(self, runners: Iterable[Runner], *, now_s: float, is_up: bool) -> bool:
        """Whether every runner moves on when it should.

        Who is late is woken at the first look; who still is late after the tolerance makes it unsound.
        """
        late = {runner for runner in runners if is_late(runner, now_s=now_s, is_up=is_up)}
        for runner in late:
            runner.attention.wake()
        self._late_since_s = {runner: self._late_since_s.get(runner, now_s) for runner in late}
        return not self._is_lost and all(now_s - at_s < TOLERANCE_S for at_s in self._late_since_s.values())


def is_late(runner: Runner, *, now_s: float, is_up: bool) -> bool:
    """Whether it is a runner's turn to move, and it does not."""
    if runner.state in FINAL:
        return False
    until_s = runner.attention.until_s
    if until_s is not None and until_s < now_s:
        return True
    match runner.state:
        case State.SCHEDULED | State.WAITING | State.STOPPING:
            return until_s is None
        case State.PARKED:
            return is_up and until_s is None
        case State.RUNNING:
            is_lost = runner.tenancy is not None and runner.tenancy.is_lost
            return is_lost or runner.run is None or runner.run.is_done
        case State.STANDBY:
            return runner.tenancy is None or runner.tenancy.may_run
        case _:
            return False
