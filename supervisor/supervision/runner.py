"""The runner of one instance: carries out what the deciding modules say, and obeys orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.errors import ProjectionHalted, ShardingConflict, WorkerExhausted
from supervisor.supervision import restart as policy
from supervisor.supervision.attendance import Attendance, StallTimeout
from supervisor.supervision.attention import Attention
from supervisor.supervision.drain import Drain
from supervisor.supervision.record import Record
from supervisor.supervision.run import Run
from supervisor.supervision.state import FINAL, Move, State, Wanted, moved

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.floor import Floor
    from supervisor.supervision.report import Report
    from supervisor.supervision.tenancy import Tenancy
    from supervisor.supervision.work import Work


_REASONS = {
    policy.Ending.FAILED: "it failed and restart is never",
    policy.Ending.POISONED: "it stands still until a person acts",
    policy.Ending.DISPLACED: "it stands aside for a configuration that came later",
}


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
        drain: How it brings a run to its end.
        floor: What it shares with the others.
        left_behind: Runs that did not end when told to, and still live.
        run: The run under way.
        owes_run: Whether a tick was cut short, by an outage, say: it is run again whatever the timetable says.
        tenancy: Its use of its lease; None: it needs none.
    """

    __slots__ = (
        "_history",
        "_not_before_s",
        "_resume_delay_s",
        "attention",
        "drain",
        "floor",
        "left_behind",
        "owes_run",
        "record",
        "report",
        "run",
        "spec",
        "state",
        "tenancy",
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
        self.floor = floor
        self._history = policy.History()
        self.drain = Drain(self.attention, clock=floor.clock)
        self._not_before_s = float("-inf")
        self._resume_delay_s = 0.0
        self.owes_run = False
        self.tenancy = _tenancy_of(work)

    def succeed(self, predecessor: Runner) -> None:
        """Take the place of another instance: its counters, and the runs it could not end."""
        self.record = predecessor.record
        self.inherit(predecessor)
        if self.tenancy is not None and predecessor.tenancy is not None:
            self.tenancy.succeed(predecessor.tenancy)

    def inherit(self, predecessor: Runner) -> None:
        """Take over the runs that another instance could not end."""
        for run in predecessor.left_behind:
            self.leave_behind(run)

    def leave_behind(self, run: Run) -> None:
        """Go on without a run that does not end when told to, and hear of its end."""
        self.left_behind.append(run)
        run.when_done(self.attention.wake)

    @property
    def lives_on(self) -> bool:
        """Whether anything of it still runs."""
        return self.run is not None or any(not run.is_done for run in self.left_behind)

    def has_left_behind(self) -> bool:
        """Whether a run that was left behind still lives."""
        self.left_behind[:] = [run for run in self.left_behind if not run.is_done]
        return bool(self.left_behind)

    def note_failure(self, error: BaseException, *, is_excused: bool) -> None:
        """Tell what a run raised, and count it unless an outage did it, or the loss of its lease."""
        if not is_excused:
            self.record.note_failure(error, now_s=self.floor.clock.now_s())
        if not isinstance(error, StallTimeout):
            # Which event or layout it was, and what follows, has been told.
            self.report.failed(error, is_told=is_excused or isinstance(error, (ProjectionHalted, ShardingConflict)))

    def cut_off(self) -> None:
        """Note that the loss of the lease has ended a run: a tick is run again if the lease comes straight back."""
        self.owes_run = self.work.timetable is not None
        self.report.left("its lease was lost")

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
        self.drain.hurry()

    def recover(self) -> None:
        """Put things in order after `live()` itself has failed, so that it can be called again."""
        if self.run is not None and not self.run.is_done:
            self.run.cancel()
            self.leave_behind(self.run)
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
        if self.tenancy is not None:
            self.tenancy.attend(self._heed_lease)
        while self.wanted is not Wanted.STOPPED and self.state not in FINAL:
            if self.wanted is Wanted.PAUSED:
                await self._pause()
            elif self.tenancy is not None and not self.tenancy.may_run:
                from supervisor.supervision.standby import stand_by  # noqa: PLC0415 - most daemons have no leases

                await stand_by(self, self.tenancy)
            else:
                await self._approach_run()
        if self.state not in FINAL and self.state is not State.ABANDONED:
            self.move(Move.REST)

    def _heed_lease(self) -> None:
        """Cut a run off in the very moment in which its lease is lost; the rest is for this runner's next turn."""
        if self.tenancy is not None and self.tenancy.is_lost and self.run is not None and not self.run.is_done:
            self.run.cut_off()
        self.attention.wake()

    async def _pause(self) -> None:
        if not self.has_left_behind():
            self.move(Move.REST)
            self.move(Move.PAUSE)
        self.report.paused()
        while self.wanted is Wanted.PAUSED:
            if self.tenancy is not None and self.state is State.PAUSED:
                self.tenancy.stand_back()
            await self.attention.wait()
            if self.state is State.ABANDONED and not self.has_left_behind():
                self.move(Move.REST)
                self.move(Move.PAUSE)
        if self.wanted is Wanted.RUNNING:
            if self.state is State.PAUSED:
                self.move(Move.REST)
            if self.work.timetable is not None:
                self.work.timetable.skip_missed()
            self.owes_run = False
            self.report.unpaused()

    async def _approach_run(self) -> None:
        """Take one step towards the next run: a wait for what is in its way, or the run itself."""
        now_s = self.floor.clock.now_s()
        timetable = self.work.timetable
        if (timetable is not None or self.tenancy is not None) and self.has_left_behind():
            # Ticks never overlap, nor do the runs of a singleton: the one that would not end comes first.
            if self.state is not State.ABANDONED:
                self.move(Move.ABANDON)
            await self.attention.wait()
        elif self.state is State.PARKED and not self.floor.outages.is_up:
            await self.attention.wait()
        elif self._resume_delay_s > 0:
            self._not_before_s, self._resume_delay_s = now_s + self._resume_delay_s, 0.0
        elif self._not_before_s > now_s:
            if self.state not in (State.WAITING, State.PARKED):
                self.move(Move.REST)
                self.move(Move.BACK_OFF)
            await self.attention.wait(self._not_before_s)
        elif timetable is not None and not self.owes_run and (delay_s := timetable.delay_s()) > 0:
            self.move(Move.SCHEDULE)
            await self.attention.wait(now_s + delay_s)
        elif timetable is not None and not self.floor.outages.is_up:
            self.move(Move.PARK)
            self.floor.on_parked()
        else:
            await self._do_run()

    async def _do_run(self) -> None:
        clock = self.floor.clock
        self.move(Move.BEGIN)
        self.owes_run = False
        if self.work.timetable is not None:
            self.work.timetable.mark_started()
        self.record.runs += 1
        self.record.last_began = clock.wall_time()
        self.report.began()
        now_s = clock.now_s()
        self._history = policy.begun(self.spec, self._history, now_s=now_s)
        self.run = run = Run(
            self.work, tasks=self.floor.tasks, name=self.report.name, began_s=now_s, on_end=self.attention.wake
        )
        ended = await Attendance(self, run).until_end()
        self.run = None
        if ended is not None:
            self._decide(*ended)

    def _decide(self, ending: policy.Ending, error: BaseException | None) -> None:
        now_s = self.floor.clock.now_s()
        decision, self._history = policy.judge(
            self.spec, self._history, ending, now_s=now_s, sample=self.floor.rng.random()
        )
        if error is not None:
            self.note_failure(error, is_excused=ending is policy.Ending.OUTAGE)
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
                    self.move(Move.BACK_OFF)
            case policy.RunAgain(delay_s):
                self.owes_run = True
                self._resume_delay_s = delay_s
                self.move(Move.PARK)
                self.floor.on_parked()
            case policy.NextTick():
                self.move(Move.REST)
            case policy.Finished(is_failure):
                self.move(Move.FAIL if is_failure else Move.FINISH)
                self.report.finished(_REASONS[ending] if is_failure else "it is done")
                if self.tenancy is not None:
                    self.tenancy.ending = ending
            case policy.Exhausted(restarts):
                self.move(Move.EXHAUST)
                self.report.exhausted(restarts, self.spec.window_s)
                if self.spec.exhausted == "exit":
                    self.floor.on_exhausted(WorkerExhausted(self._exhaustion(restarts)))

    def _exhaustion(self, restarts: int) -> str:
        return f"worker {self.spec.name} failed again after {restarts} restarts within {self.spec.window_s:g} s"

    def move(self, move: Move) -> None:
        """Pass into the state that the move leads to."""
        self.state = moved(self.state, move)


def _tenancy_of(work: Work) -> Tenancy | None:
    if work.tenure is None:
        return None
    from supervisor.supervision.tenancy import Tenancy  # noqa: PLC0415 - most daemons have no leases

    return Tenancy(work.tenure)
