"""The runner of one instance: carries out what the deciding modules say, and obeys orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.errors import WorkerExhausted
from supervisor.supervision import restart as policy
from supervisor.supervision.attention import Attention
from supervisor.supervision.drain import Drain
from supervisor.supervision.record import Record
from supervisor.supervision.run import Run
from supervisor.supervision.state import FINAL, Move, State, Wanted, moved

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.floor import Floor
    from supervisor.supervision.report import Report
    from supervisor.supervision.work import Work


class Stalled(Exception):
    """A tick took longer than its worker's `stall_timeout`."""


class Runner:
    """One instance of a worker.

    `live()` is its task; everything else may be called at any time and takes effect there.

    Attributes:
        spec: The worker's configuration.
        work: What it does.
        state: What goes on.
        wanted: What is wanted of it.
        record: What has happened to it.
        attention: What it waits with.
        left_behind: Runs that did not end when told to, and still live.
        run: The run under way.
    """

    __slots__ = (
        "_drain",
        "_floor",
        "_history",
        "_not_before_s",
        "_owes_run",
        "_resume_delay_s",
        "attention",
        "left_behind",
        "record",
        "report",
        "run",
        "spec",
        "state",
        "wanted",
        "work",
    )

    def __init__(self, spec: WorkerSpec, work: Work, floor: Floor, *, report: Report) -> None:
        self.spec = spec
        self.work = work
        self.report = report
        self.state = State.STOPPED
        self.wanted = Wanted.RUNNING
        self.record = Record()
        self.attention = Attention(floor.alarm)
        self.left_behind: list[Run] = []
        self.run: Run | None = None
        self._floor = floor
        self._history = policy.History()
        self._drain = Drain(self.attention, clock=floor.clock)
        self._not_before_s = float("-inf")
        self._resume_delay_s = 0.0
        # An outage ended a tick: it is run again whatever the timetable says.
        self._owes_run = False

    def succeed(self, predecessor: Runner) -> None:
        """Take the place of another instance: its counters, and the runs it could not end."""
        self.record = predecessor.record
        self.inherit(predecessor)

    def inherit(self, predecessor: Runner) -> None:
        """Take over the runs that another instance could not end."""
        for run in predecessor.left_behind:
            self.left_behind.append(run)
            run.when_done(self.attention.wake)

    def order(self, wanted: Wanted, *, reason: str | None = None, is_quiet: bool = False) -> None:
        """Say what is wanted from now on; `reason` and `is_quiet` shape the entry that tells it.

        A stop is final: what is wanted later concerns the instance that takes its place.
        """
        if self.wanted is Wanted.STOPPED:
            return
        self.wanted = wanted
        self.report.reason = reason
        self.report.is_quiet = is_quiet
        if wanted is Wanted.STOPPED and self.run is not None:
            # Now, not in the runner's next turn: ten thousand workers end together.
            self.run.tell_stop()
        self.attention.wake()

    def hurry(self) -> None:
        """Cancel at once what has been told to stop."""
        self._drain.hurry()

    def recover(self) -> None:
        """Put things in order after `live()` itself has failed, so that it can be called again."""
        if self.run is not None and not self.run.is_done:
            self.run.cancel()
            self.left_behind.append(self.run)
            self.run.when_done(self.attention.wake)
        self.run = None
        self.state = State.STOPPED

    @property
    def next_run_s(self) -> float | None:
        """When the next run is due on the monotonic clock, if it waits for a time."""
        if self.state not in (State.WAITING, State.SCHEDULED):
            return None
        timetable = self.work.timetable
        return self._not_before_s if timetable is None else max(self._not_before_s, timetable.next_run_s())

    async def live(self) -> None:
        """Obey until the instance is to stop or has reached its end."""
        while self.wanted is not Wanted.STOPPED and self.state not in FINAL:
            if self.wanted is Wanted.PAUSED:
                await self._pause()
            else:
                await self._approach_run()
        if self.state not in FINAL and self.state is not State.ABANDONED:
            self._move(Move.REST)

    async def _pause(self) -> None:
        if not self._has_left_behind():
            self._move(Move.REST)
            self._move(Move.PAUSE)
        self.report.paused()
        while self.wanted is Wanted.PAUSED:
            await self.attention.wait()
            if self.state is State.ABANDONED and not self._has_left_behind():
                self._move(Move.REST)
                self._move(Move.PAUSE)
        if self.wanted is Wanted.RUNNING:
            if self.state is State.PAUSED:
                self._move(Move.REST)
            if self.work.timetable is not None:
                self.work.timetable.skip_missed()
            self._owes_run = False
            self.report.unpaused()

    async def _approach_run(self) -> None:
        """Take one step towards the next run: a wait for what is in its way, or the run itself."""
        now_s = self._floor.clock.now_s()
        timetable = self.work.timetable
        if timetable is not None and self._has_left_behind():
            # Ticks never overlap: the one that would not end comes first.
            if self.state is not State.ABANDONED:
                self._move(Move.ABANDON)
            await self.attention.wait()
        elif self.state is State.PARKED and not self._floor.outages.is_up:
            await self.attention.wait()
        elif self._resume_delay_s > 0:
            self._not_before_s, self._resume_delay_s = now_s + self._resume_delay_s, 0.0
        elif self._not_before_s > now_s:
            if self.state not in (State.WAITING, State.PARKED):
                self._move(Move.REST)
                self._move(Move.BACK_OFF)
            await self.attention.wait(self._not_before_s)
        elif timetable is not None and not self._owes_run and (delay_s := timetable.delay_s()) > 0:
            self._move(Move.SCHEDULE)
            await self.attention.wait(now_s + delay_s)
        elif timetable is not None and not self._floor.outages.is_up:
            self._move(Move.PARK)
            self._floor.on_parked()
        else:
            await self._do_run()

    async def _do_run(self) -> None:
        clock = self._floor.clock
        self._move(Move.BEGIN)
        self._owes_run = False
        if self.work.timetable is not None:
            self.work.timetable.begin()
        self.record.runs += 1
        self.record.last_began = clock.wall()
        self.report.began()
        now_s = clock.now_s()
        self._history = policy.begun(self.spec, self._history, now_s=now_s)
        self.run = run = Run(
            self.work, tasks=self._floor.tasks, name=self.report.name, began_s=now_s, on_end=self.attention.wake
        )
        await self._attend(run)
        self.run = None

    async def _attend(self, run: Run) -> None:
        while not run.is_done:
            if self.wanted is not Wanted.RUNNING:
                return await self._stop(run)
            stall_at_s = self._stall_at_s(run)
            if stall_at_s is not None and self._floor.clock.now_s() >= stall_at_s:
                return await self._stall(run)
            await self.attention.wait(stall_at_s)
        return await self._judge(run)

    def _stall_at_s(self, run: Run) -> float | None:
        limit_s = self.spec.stall_timeout_s
        if self.work.timetable is None or limit_s <= 0:
            return None
        if not self._floor.outages.is_up:
            # A call may wait as long as an outage takes; its time counts from the database's return.
            return self._floor.clock.now_s() + limit_s
        return max(run.began_s, self._floor.up_since_s()) + limit_s

    async def _stall(self, run: Run) -> None:
        self.report.stalled(self.spec.stall_timeout_s, run.stack())
        self._move(Move.TELL_STOP)
        run.tell_stop()
        is_gone = await self._bring_to_end(run, limit_s=0.0)
        stalled = Stalled(f"took longer than {self.spec.stall_timeout_s:g} s")
        if self.wanted is Wanted.RUNNING:
            self._decide(policy.Ending.FAILED, stalled)
        elif is_gone:
            self._note_stopped(stalled)
            self._move(Move.REST)

    async def _stop(self, run: Run) -> None:
        self._move(Move.TELL_STOP)
        run.tell_stop()
        if await self._bring_to_end(run, limit_s=self.spec.stop_timeout_s):
            self._note_stopped(run.take_error(), cut_off_after_s=self._drain.cut_off_after_s)
            self._move(Move.REST)

    def _note_stopped(self, error: BaseException | None, *, cut_off_after_s: float | None = None) -> None:
        self.record.last_ended = self._floor.clock.wall()
        if error is not None:
            self._note_failure(error, is_outage=not self._floor.outages.is_up)
        self.report.stopped(cut_off_after_s=cut_off_after_s)

    def _note_failure(self, error: BaseException, *, is_outage: bool) -> None:
        if not is_outage:
            self.record.note_failure(error, now_s=self._floor.clock.now_s())
        if not isinstance(error, Stalled):
            self.report.failed(error, is_outage=is_outage)

    async def _bring_to_end(self, run: Run, *, limit_s: float) -> bool:
        """Wait for a run that was told to stop; leave it behind if it does not end in time."""
        began_s = self._floor.clock.now_s()
        is_work = self.work.timetable is not None
        if await self._drain.wait_for(run, limit_s=limit_s, is_work=is_work):
            return True
        self.left_behind.append(run)
        run.when_done(self.attention.wake)
        self._move(Move.ABANDON)
        self.report.abandoned(self._floor.clock.now_s() - began_s, run.stack())
        return False

    async def _judge(self, run: Run) -> None:
        error = run.take_error()
        ending = policy.Ending.RETURNED
        if error is not None:
            ending = policy.Ending.OUTAGE if await self._is_outage(error) else policy.Ending.FAILED
        if self.wanted is Wanted.RUNNING:
            self.record.last_ended = self._floor.clock.wall()
            self._decide(ending, error)
        else:
            self._note_stopped(error)
            self._move(Move.REST)

    async def _is_outage(self, error: BaseException) -> bool:
        """Ask whether an outage explains an error; an order ends the wait for the answer."""
        floor = self._floor
        asking = floor.tasks.start(floor.outages.explains(error), name=f"outage? {self.report.name}")
        asking.add_done_callback(lambda _: self.attention.wake())
        while not asking.done():
            if self.wanted is not Wanted.RUNNING:
                asking.cancel()
                return not floor.outages.is_up
            await self.attention.wait()
        return not asking.cancelled() and asking.exception() is None and asking.result()

    def _decide(self, ending: policy.Ending, error: BaseException | None) -> None:
        now_s = self._floor.clock.now_s()
        decision, self._history = policy.judge(
            self.spec, self._history, ending, now_s=now_s, sample=self._floor.rng.random()
        )
        if error is not None:
            self._note_failure(error, is_outage=ending is policy.Ending.OUTAGE)
        self._carry_out(decision, ending, now_s)

    def _carry_out(self, decision: policy.Decision, ending: policy.Ending, now_s: float) -> None:
        match decision:
            case policy.RestartAfter(delay_s, restarts):
                self.record.restarts += 1
                if ending is policy.Ending.RETURNED:
                    self.report.returned()
                self._not_before_s = now_s + delay_s
                self.report.restarting(delay_s, restarts)
                if self.state is not State.ABANDONED:
                    self._move(Move.BACK_OFF)
            case policy.RunAgain(delay_s):
                self._owes_run = True
                self._resume_delay_s = delay_s
                self._move(Move.PARK)
                self._floor.on_parked()
            case policy.NextTick():
                self._move(Move.REST)
            case policy.Finished(is_failure):
                self._move(Move.FAIL if is_failure else Move.FINISH)
                self.report.finished(is_failure=is_failure)
            case policy.Exhausted(restarts):
                self._move(Move.EXHAUST)
                self.report.exhausted(restarts, self.spec.window_s)
                if self.spec.exhausted == "exit":
                    self._floor.on_exhausted(WorkerExhausted(self._exhaustion(restarts)))

    def _exhaustion(self, restarts: int) -> str:
        return f"worker {self.spec.name} failed again after {restarts} restarts within {self.spec.window_s:g} s"

    def _has_left_behind(self) -> bool:
        self.left_behind[:] = [run for run in self.left_behind if not run.is_done]
        return bool(self.left_behind)

    def _move(self, move: Move) -> None:
        self.state = moved(self.state, move)
