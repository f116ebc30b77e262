"""Stays with one run until its end: looks on, tells it to stop when that is wanted, and says how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.errors import ProjectionHalted, ShardingConflict
from supervisor.supervision.restart import Ending
from supervisor.supervision.state import Move, Wanted

if TYPE_CHECKING:
    from supervisor.supervision.run import Run
    from supervisor.supervision.runner import Runner


_HANDED_OVER = "its lease passes to another node"


class StallTimeout(Exception):
    """A tick took longer than its worker's `stall_timeout`."""


class Ended(NamedTuple):
    """A run's end that the restart policy has to judge.

    Attributes:
        ending: How it ended.
        error: What it raised.
    """

    ending: Ending
    error: BaseException | None


class Attendance:
    """What a runner does while one run is under way."""

    __slots__ = ("_floor", "_run", "_runner")

    def __init__(self, runner: Runner, run: Run) -> None:
        self._runner = runner
        self._run = run
        self._floor = runner.floor

    async def until_end(self) -> Ended | None:
        """Return how the run ended by itself or as a failure; None: it was stopped as wanted, or left behind."""
        runner, run = self._runner, self._run
        while not run.is_done:
            if not self._may_go_on():
                await self._stop()
                return None
            stall_at_s = self._stall_at_s()
            if stall_at_s is not None and self._floor.clock.now_s() >= stall_at_s:
                return await self._stall()
            await runner.attention.wait(stall_at_s)
        return await self._judge()

    def _may_go_on(self) -> bool:
        runner = self._runner
        return runner.wanted is Wanted.RUNNING and (runner.tenancy is None or runner.tenancy.may_run)

    def _is_lost(self) -> bool:
        """Whether whatever the run did has to end, and counts for nothing, because its lease is lost."""
        tenancy = self._runner.tenancy
        return tenancy is not None and tenancy.is_lost

    def _stall_at_s(self) -> float | None:
        limit_s = self._runner.spec.stall_timeout_s
        if self._runner.work.timetable is None or limit_s <= 0:
            return None
        if not self._floor.outages.is_up:
            # A call may wait as long as an outage takes; its time counts from the database's return.
            return self._floor.clock.now_s() + limit_s
        return max(self._run.began_s, self._floor.up_since_s()) + limit_s

    async def _stall(self) -> Ended | None:
        runner = self._runner
        runner.report.stalled(runner.spec.stall_timeout_s, self._run.stack())
        runner.move(Move.TELL_STOP)
        self._run.tell_stop()
        is_gone = await self._bring_to_end(limit_s=0.0)
        stalled = StallTimeout(f"took longer than {runner.spec.stall_timeout_s:g} s")
        if runner.wanted is Wanted.RUNNING and not self._is_lost():
            return Ended(Ending.FAILED, stalled)
        if is_gone:
            self._rest(stalled)
        return None

    async def _stop(self) -> None:
        runner = self._runner
        runner.move(Move.TELL_STOP)
        self._run.tell_stop()
        if await self._bring_to_end(limit_s=runner.spec.stop_timeout_s):
            self._rest(self._run.take_error(), cut_off_after_s=runner.drain.cut_off_after_s)
        elif runner.tenancy is not None:
            self._floor.on_outlived(runner)

    def _rest(self, error: BaseException | None, *, cut_off_after_s: float | None = None) -> None:
        """Note that the run has been stopped, and what it raised meanwhile."""
        runner = self._runner
        runner.record.last_ended = self._floor.clock.wall_time()
        is_lost = self._is_lost()
        if error is not None:
            runner.note_failure(error, is_excused=is_lost or not self._floor.outages.is_up)
        if is_lost:
            runner.cut_off()
        elif runner.wanted is not Wanted.RUNNING:
            runner.report.stopped(runner.report.reason, cut_off_after_s=cut_off_after_s)
        elif cut_off_after_s is None:
            runner.report.left(_HANDED_OVER)
        else:
            runner.report.stopped(_HANDED_OVER, cut_off_after_s=cut_off_after_s)
        runner.move(Move.REST)

    async def _bring_to_end(self, *, limit_s: float) -> bool:
        """Wait for a run that was told to stop; leave it behind if it does not end in time."""
        runner, run = self._runner, self._run
        began_s = self._floor.clock.now_s()
        is_work = runner.work.timetable is not None
        if await runner.drain.wait_for(run, limit_s=limit_s, is_work=is_work, tenancy=runner.tenancy):
            return True
        runner.leave_behind(run)
        runner.move(Move.ABANDON)
        runner.report.abandoned(self._floor.clock.now_s() - began_s, run.stack())
        return False

    async def _judge(self) -> Ended | None:
        runner, error = self._runner, self._run.take_error()
        ending = Ending.RETURNED
        if error is not None:
            ending = await self._ending_of(error)
        if runner.wanted is Wanted.RUNNING and not self._is_lost():
            runner.record.last_ended = self._floor.clock.wall_time()
            return Ended(ending, error)
        self._rest(error)
        return None

    async def _ending_of(self, error: BaseException) -> Ending:
        if isinstance(error, ProjectionHalted):
            return Ending.POISONED
        if isinstance(error, ShardingConflict):
            return Ending.DISPLACED
        return Ending.OUTAGE if await self._is_outage(error) else Ending.FAILED

    async def _is_outage(self, error: BaseException) -> bool:
        """Ask whether an outage explains an error; an order ends the wait for the answer."""
        floor, runner = self._floor, self._runner
        asking = floor.tasks.start(floor.outages.is_outage_error(error), name=f"outage? {runner.report.name}")
        asking.add_done_callback(lambda _: runner.attention.wake())
        while not asking.done():
            if runner.wanted is not Wanted.RUNNING or self._is_lost():
                asking.cancel()
                return not floor.outages.is_up
            await runner.attention.wait()
        return not asking.cancelled() and asking.exception() is None and asking.result()
