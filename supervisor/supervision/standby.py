"""What a runner does while its lease is not held here: gives back what is left, waits, and takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.model import Periodic
from supervisor.supervision.state import Move, State, Wanted
from supervisor.supervision.stopping import GRACE_S

if TYPE_CHECKING:
    from supervisor.supervision.runner import Runner
    from supervisor.supervision.tenancy import Tenancy


async def stand_by(runner: Runner, tenancy: Tenancy) -> None:
    """Wait for the lease, until something changes."""
    if runner.has_left_behind():
        await _outlast(runner, tenancy)
        return
    if runner.state is not State.STANDBY:
        runner.move(Move.STAND_BY)
    tenancy.stand_by()
    await runner.attention.wait()
    if tenancy.may_run and runner.wanted is Wanted.RUNNING:
        _take_over(runner, tenancy)


def _take_over(runner: Runner, tenancy: Tenancy) -> None:
    """Decide which ticks are owed: those that came due meanwhile were another node's, if there was one."""
    is_straight_back = tenancy.take_over()
    timetable, kind = runner.work.timetable, runner.spec.kind
    if timetable is None or is_straight_back:
        return
    runner.owes_run = False
    is_first = runner.record.runs == 0 and isinstance(kind, Periodic) and kind.immediate
    if not is_first:
        timetable.skip_missed()


async def _outlast(runner: Runner, tenancy: Tenancy) -> None:
    """Give a run that was left behind a last grace, for its lease has to go."""
    if runner.state is not State.ABANDONED:
        runner.move(Move.ABANDON)
    for run in runner.left_behind:
        run.cancel()
    clock = runner.floor.clock
    until_s: float | None = clock.now_s() + GRACE_S
    while runner.has_left_behind() and runner.wanted is Wanted.RUNNING and not tenancy.may_run:
        if until_s is not None and clock.now_s() >= until_s:
            runner.floor.on_outlived(runner)
            until_s = None
        await runner.attention.wait(until_s)
