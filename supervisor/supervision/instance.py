"""One instance of a worker: carries out what the policies decide, and follows its desired state and its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.config.kinds import kind_of
from supervisor.config.model import Periodic
from supervisor.errors import ProjectionHalted, ShardingConflict, WorkerExhausted
from supervisor.supervision import restart_policy as policy
from supervisor.supervision.instance_lease import InstanceLease
from supervisor.supervision.instance_log import InstanceStats
from supervisor.supervision.ports import StallTimeout
from supervisor.supervision.restart_policy import RunOutcome
from supervisor.supervision.run import Run
from supervisor.supervision.run_monitor import RunEvent, StopLimits, StopResult, monitor_run, outcome_of, stop_run
from supervisor.supervision.states import FINAL, DesiredState, InstanceState, Transition, next_state
from supervisor.supervision.stop_policy import GRACE_S
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec
    from supervisor.supervision.instance_log import InstanceLog
    from supervisor.supervision.ports import DatabaseStatus, Work
    from supervisor.tasks import BackgroundTasks
    from supervisor.wakeup import TimerQueue

_REASONS = {
    RunOutcome.FAILED: "it failed and restart is never",
    RunOutcome.HALTED: "it cannot go on until an operator acts",
    RunOutcome.SHARDING_CONFLICT: "a node with a newer configuration uses another number of shards",
}
_LEASE_MOVED = "its lease passes to another node"
# Only started again elsewhere, such a worker would do no better: it keeps its lease.
_KEEP_LEASE_IN = frozenset({InstanceState.FINISHED, InstanceState.FAILED})


class InstanceServices(NamedTuple):
    """Services shared by all instances of a supervisor.

    Attributes:
        clock: Time.
        rng: Chance, for jitter.
        tasks: Where tasks start.
        timers: Deadlines.
        database: The database.
        up_since_s: When the database last came back; -inf: it has not been down.
        on_parked: Called when an instance begins to wait for the database; its wakeup is woken when that is up.
        on_exhausted: Called when a worker is exhausted whose configuration says that the daemon ends with it.
        on_lease_overrun: Called with the worker's name, and whether the lease is lost already, when a run under a
            lease did not end by its deadline: the lease cannot be given back, and another node may take it at any time.
    """

    clock: Clock
    rng: Random
    tasks: BackgroundTasks
    timers: TimerQueue
    database: DatabaseStatus
    up_since_s: Callable[[], float]
    on_parked: Callable[[], None]
    on_exhausted: Callable[[WorkerExhausted], None]
    on_lease_overrun: Callable[[str, bool], None]


class WorkerInstance:
    """One instance of a worker.

    `run()` is its task. All other methods may be called at any time; what they change takes effect in that task, one
    change after the other. Only a stop request and the loss of the lease reach the run under way at once.

    Attributes:
        spec: The worker's configuration.
        work: What it does.
        log: Its journal entries.
        state: What it does now.
        desired_state: What is wanted of it.
        stats: What it has counted.
        wakeup: What its task waits with.
        services: What it shares with the other instances.
        current_run: The run under way.
        abandoned_runs: Runs that did not end when they were asked to.
        has_pending_tick: Whether a tick was interrupted, by an outage for example: it is run again whatever the
            schedule says.
        lease: Its use of its lease; None: it needs none.
        last_outcome: How the last run ended of an instance that is not run again.
    """

    __slots__ = (
        "_forced_since_s",
        "_history",
        "_not_before_s",
        "_outage_delay_s",
        "abandoned_runs",
        "current_run",
        "desired_state",
        "has_pending_tick",
        "last_outcome",
        "lease",
        "log",
        "services",
        "spec",
        "state",
        "stats",
        "wakeup",
        "work",
    )

    def __init__(self, spec: WorkerSpec, work: Work, services: InstanceServices, *, log: InstanceLog) -> None:
        self.spec = spec
        self.work = work
        self.log = log
        self.services = services
        self.state = InstanceState.STOPPED
        self.desired_state = DesiredState.RUNNING
        self.stats = InstanceStats()
        self.wakeup = Wakeup(clock=services.clock, timers=services.timers)
        self.current_run: Run | None = None
        self.abandoned_runs: list[Run] = []
        self.has_pending_tick = False
        self.lease = None if work.lease_handle is None else InstanceLease(work.lease_handle)
        self.last_outcome: RunOutcome | None = None
        self._history = policy.RestartHistory()
        self._not_before_s = float("-inf")
        self._outage_delay_s = 0.0
        self._forced_since_s: float | None = None

    def take_over_from(self, predecessor: WorkerInstance) -> None:
        """Take the place of another instance: its counters, its abandoned runs, and its lease's epoch."""
        self.stats = predecessor.stats
        self.adopt_abandoned(predecessor)
        if self.lease is not None and predecessor.lease is not None:
            self.lease.take_over_from(predecessor.lease)

    def adopt_abandoned(self, predecessor: WorkerInstance) -> None:
        """Take over the runs that another instance could not end."""
        for run in predecessor.abandoned_runs:
            self._abandon(run)

    @property
    def is_halted(self) -> bool:
        """Whether it has ended because it cannot go on until somebody acts, here or on another node."""
        is_halted = self.last_outcome in (RunOutcome.HALTED, RunOutcome.SHARDING_CONFLICT)
        return is_halted and self.lease is not None and self.state is InstanceState.FAILED

    @property
    def has_live_runs(self) -> bool:
        """Whether anything of it still runs."""
        return self.current_run is not None or any(not run.is_done for run in self.abandoned_runs)

    @property
    def next_run_s(self) -> float | None:
        """When the next run is due on the monotonic clock, if it waits for a time."""
        if self.state not in (InstanceState.WAITING, InstanceState.SCHEDULED):
            return None
        schedule = self.work.schedule
        return self._not_before_s if schedule is None else max(self._not_before_s, schedule.next_run_s())

    def set_desired_state(
        self, desired_state: DesiredState, *, reason: str | None = None, log_at_debug: bool = False
    ) -> None:
        """Set what is wanted from now on; `reason` and `log_at_debug` shape the entry that reports it.

        A stop is final: what is wanted later concerns the instance that takes its place.
        """
        if self.desired_state is DesiredState.STOPPED:
            return
        self.desired_state = desired_state
        self.log.stop_reason = reason
        self.log.log_at_debug = log_at_debug
        if desired_state is DesiredState.STOPPED and self.current_run is not None:
            # Now, not in the task's next turn: ten thousand workers end together.
            self.current_run.request_stop()
        self.wakeup.wake()

    def force_stop(self) -> None:
        """Cancel a run that is being stopped, now and from now on."""
        self._forced_since_s = self.services.clock.now_s()
        self.wakeup.wake()

    def reset_after_crash(self) -> None:
        """Restore a valid state after `run()` itself has failed, so that it can be called again."""
        if self.current_run is not None and not self.current_run.is_done:
            self.current_run.cancel()
            self._abandon(self.current_run)
        self.current_run = None
        self.state = InstanceState.STOPPED

    async def run(self) -> None:
        """Follow the desired state until the instance is to stop or has reached a final state."""
        if self.lease is not None:
            self.lease.on_change(self._on_lease_changed)
        while self.desired_state is not DesiredState.STOPPED and self.state not in FINAL:
            if self.desired_state is DesiredState.PAUSED:
                await self._pause()
            elif self.lease is not None and not self.lease.may_run:
                await self._wait_for_lease(self.lease)
            else:
                await self._wait_for_next_run()
        if self.state not in FINAL and self.state is not InstanceState.ABANDONED:
            self._move(Transition.BECOME_IDLE)

    def attend_lease_after_end(self) -> None:
        """Give the lease back when it is asked for, now that `run()` is over."""
        if self.lease is None:
            return
        if self.state is InstanceState.EXHAUSTED or self.last_outcome is RunOutcome.SHARDING_CONFLICT:
            # The worker may succeed on another node, and that node's configuration may need the lease.
            self.lease.decline_for_good()
        self.lease.on_change(self._on_lease_changed_after_end)
        self._on_lease_changed_after_end()

    def _on_lease_changed_after_end(self) -> None:
        lease = self.lease
        assert lease is not None  # noqa: S101 - only the lease calls this
        if not self._has_abandoned_runs():
            lease.release_if_due(keep=self.state in _KEEP_LEASE_IN and not lease.is_declined_for_good)
        elif lease.awaits_worker_end:
            self._report_lease_overrun()

    def _on_lease_changed(self) -> None:
        """Cancel the run as soon as its lease is lost; everything else waits for the task's next turn."""
        run = self.current_run
        if self._is_lease_lost() and run is not None and not run.is_done:
            run.cancel_early()
        self.wakeup.wake()

    def _is_lease_lost(self) -> bool:
        """Whether the run has to end, and what it raises counts for nothing, because its lease is lost."""
        return self.lease is not None and self.lease.is_lost

    def _report_lease_overrun(self) -> None:
        self.services.on_lease_overrun(self.spec.name, self._is_lease_lost())

    async def _pause(self) -> None:
        self.log.paused()
        while self.desired_state is DesiredState.PAUSED:
            if self.state is not InstanceState.PAUSED and not self._has_abandoned_runs():
                self._move(Transition.BECOME_IDLE)
                self._move(Transition.PAUSE)
            if self.lease is not None and self.state is InstanceState.PAUSED:
                self.lease.decline()
            await self.wakeup.wait()
        if self.desired_state is DesiredState.RUNNING:
            if self.state is InstanceState.PAUSED:
                self._move(Transition.BECOME_IDLE)
            if self.work.schedule is not None:
                self.work.schedule.skip_missed()
            self.has_pending_tick = False
            self.log.unpaused()

    async def _wait_for_lease(self, lease: InstanceLease) -> None:
        """Give back what is left of the former lease, and wait until something changes."""
        if self._has_abandoned_runs():
            await self._end_abandoned_runs(lease)
            return
        if self.state is not InstanceState.STANDBY:
            self._move(Transition.WAIT_FOR_LEASE)
        lease.request()
        await self.wakeup.wait()
        if lease.may_run and self.desired_state is DesiredState.RUNNING:
            self._on_lease_acquired(lease)

    async def _end_abandoned_runs(self, lease: InstanceLease) -> None:
        """Cancel the abandoned runs and give them a last grace, for the lease has to go."""
        if self.state is not InstanceState.ABANDONED:
            self._move(Transition.ABANDON)
        for run in self.abandoned_runs:
            run.cancel()
        clock = self.services.clock
        until_s: float | None = clock.now_s() + GRACE_S
        while self._has_abandoned_runs() and self.desired_state is DesiredState.RUNNING and not lease.may_run:
            if until_s is not None and clock.now_s() >= until_s:
                self._report_lease_overrun()
                until_s = None
            await self.wakeup.wait(until_s)

    def _on_lease_acquired(self, lease: InstanceLease) -> None:
        """Decide which ticks are due: those that came due meanwhile were another node's, if there was one."""
        had_it_last = lease.begin_epoch()
        schedule, kind = self.work.schedule, self.spec.kind
        if schedule is None or had_it_last:
            return
        self.has_pending_tick = False
        is_first = self.stats.runs == 0 and isinstance(kind, Periodic) and kind.immediate
        if not is_first:
            schedule.skip_missed()

    async def _wait_for_next_run(self) -> None:
        """Take one step towards the next run: a wait for what is in its way, or the run itself."""
        now_s, is_up = self.services.clock.now_s(), self.services.database.is_up
        schedule = self.work.schedule
        if (schedule is not None or self.lease is not None) and self._has_abandoned_runs():
            # Ticks never overlap, nor do the runs of a singleton: the abandoned run has to end first.
            if self.state is not InstanceState.ABANDONED:
                self._move(Transition.ABANDON)
            await self.wakeup.wait()
        elif self.state is InstanceState.PARKED and not is_up:
            await self.wakeup.wait()
        elif self._outage_delay_s > 0:
            self._not_before_s, self._outage_delay_s = now_s + self._outage_delay_s, 0.0
        elif self._not_before_s > now_s:
            if self.state not in (InstanceState.WAITING, InstanceState.PARKED):
                self._move(Transition.BECOME_IDLE)
                self._move(Transition.BACK_OFF)
            await self.wakeup.wait(self._not_before_s)
        elif schedule is not None and not self.has_pending_tick and (delay_s := schedule.delay_s()) > 0:
            self._move(Transition.SCHEDULE)
            await self.wakeup.wait(now_s + delay_s)
        elif schedule is not None and not is_up:
            self._park()
        else:
            await self._run_once()

    def _park(self) -> None:
        self._move(Transition.PARK)
        self.services.on_parked()

    async def _run_once(self) -> None:
        services = self.services
        self._move(Transition.BEGIN)
        self.has_pending_tick = False
        if self.work.schedule is not None:
            self.work.schedule.mark_started()
        self.stats.runs += 1
        self.stats.last_started = services.clock.wall_time()
        self.log.started()
        now_s = services.clock.now_s()
        self._history = policy.on_run_started(self.spec, self._history, now_s=now_s)
        self.current_run = run = Run(
            self.work, tasks=services.tasks, name=self.log.name, started_s=now_s, on_change=self.wakeup.wake
        )
        event = await monitor_run(
            run,
            wakeup=self.wakeup,
            clock=services.clock,
            may_continue=self._may_continue,
            stall_at_s=self._stall_at_s,
        )
        match event:
            case RunEvent.ENDED:
                await self._on_run_ended(run)
            case RunEvent.HAS_TO_STOP:
                await self._stop_as_desired(run)
            case RunEvent.STALLED:
                await self._stop_stalled(run)

    def _may_continue(self) -> bool:
        return self.desired_state is DesiredState.RUNNING and (self.lease is None or self.lease.may_run)

    def _is_outcome_of_interest(self) -> bool:
        return self.desired_state is DesiredState.RUNNING and not self._is_lease_lost()

    def _stall_at_s(self) -> float | None:
        limit_s, run = self.spec.stall_timeout_s, self.current_run
        # Where a run is more than one tick, the work itself limits each of its calls.
        if limit_s <= 0 or run is None or not kind_of(self.spec).runs_ticks:
            return None
        if not self.services.database.is_up:
            # A call may wait as long as an outage takes; its time counts from the database's return.
            return self.services.clock.now_s() + limit_s
        return max(run.started_s, self.services.up_since_s()) + limit_s

    async def _on_run_ended(self, run: Run) -> None:
        services = self.services
        outcome = await outcome_of(
            run.error,
            database=services.database,
            tasks=services.tasks,
            wakeup=self.wakeup,
            may_wait=self._is_outcome_of_interest,
        )
        self.current_run = None
        if self._is_outcome_of_interest():
            self.stats.last_ended = services.clock.wall_time()
            self._decide_next(outcome, run.error)
        else:
            self._on_run_stopped(run.error)

    async def _stop_as_desired(self, run: Run) -> None:
        stop = await self._stop(run, timeout_s=self.spec.stop_timeout_s)
        self.current_run = None
        if stop.has_ended:
            self._on_run_stopped(run.error, cancelled_after_s=stop.cancelled_after_s)
        elif self.lease is not None:
            self._report_lease_overrun()

    async def _stop_stalled(self, run: Run) -> None:
        limit_s = self.spec.stall_timeout_s
        self.log.stalled(limit_s, run.stack())
        stop = await self._stop(run, timeout_s=0.0)
        self.current_run = None
        stalled = StallTimeout(f"took longer than {limit_s:g} s")
        if self._is_outcome_of_interest():
            self._decide_next(RunOutcome.FAILED, stalled)
        elif stop.has_ended:
            self._on_run_stopped(stalled)

    async def _stop(self, run: Run, *, timeout_s: float) -> StopResult:
        """Stop the run; abandon it if it does not end in time."""
        self._move(Transition.REQUEST_STOP)
        limits = StopLimits(timeout_s, kind_of(self.spec).runs_ticks, self._is_lease_lost, lambda: self._forced_since_s)
        stop = await stop_run(run, limits, wakeup=self.wakeup, clock=self.services.clock)
        if not stop.has_ended:
            self._abandon(run)
            self._move(Transition.ABANDON)
            self.log.abandoned(stop.took_s, run.stack())
        return stop

    def _on_run_stopped(self, error: BaseException | None, *, cancelled_after_s: float | None = None) -> None:
        """Note that the run has ended as it had to, and what it raised meanwhile."""
        self.stats.last_ended = self.services.clock.wall_time()
        is_lost = self._is_lease_lost()
        if error is not None:
            self._note_failure(error, is_excused=is_lost or not self.services.database.is_up)
        if is_lost:
            # A tick is run again if the lease comes straight back.
            self.has_pending_tick = kind_of(self.spec).runs_ticks
            self.log.lease_moved("its lease was lost")
        elif self.desired_state is not DesiredState.RUNNING:
            self.log.stopped(self.log.stop_reason, cancelled_after_s=cancelled_after_s)
        elif cancelled_after_s is None:
            self.log.lease_moved(_LEASE_MOVED)
        else:
            self.log.stopped(_LEASE_MOVED, cancelled_after_s=cancelled_after_s)
        self._move(Transition.BECOME_IDLE)

    def _decide_next(self, outcome: RunOutcome, error: BaseException | None) -> None:
        now_s = self.services.clock.now_s()
        decision, self._history = policy.decide_restart(
            self.spec, self._history, outcome, now_s=now_s, sample=self.services.rng.random()
        )
        if error is not None:
            self._note_failure(error, is_excused=outcome is RunOutcome.OUTAGE)
        self._apply_decision(decision, outcome, now_s)

    def _apply_decision(self, decision: policy.Decision, outcome: RunOutcome, now_s: float) -> None:
        match decision:
            case policy.RestartAfter(delay_s, restarts):
                self.stats.restarts += 1
                if outcome is RunOutcome.RETURNED:
                    self.log.returned()
                self._not_before_s = now_s + delay_s
                self.log.restarting(delay_s, restarts)
                if self.state is not InstanceState.ABANDONED:
                    self._move(Transition.BACK_OFF)
            case policy.ResumeAfterOutage(delay_s):
                self.has_pending_tick = True
                self._outage_delay_s = delay_s
                self._park()
            case policy.NoRestart.NEXT_TICK:
                self._move(Transition.BECOME_IDLE)
            case policy.NoRestart.FINISHED:
                self._move(Transition.FINISH)
                self.log.finished("it is done")
                self.last_outcome = outcome
            case policy.NoRestart.FAILED:
                self._move(Transition.FAIL)
                self.log.finished(_REASONS[outcome])
                self.last_outcome = outcome
            case policy.Exhausted(restarts):
                self._move(Transition.EXHAUST)
                self.log.exhausted(restarts, self.spec.window_s)
                if self.spec.exhausted == "exit":
                    self.services.on_exhausted(WorkerExhausted(self._exhausted_text(restarts)))

    def _exhausted_text(self, restarts: int) -> str:
        return f"worker {self.spec.name} failed again after {restarts} restarts within {self.spec.window_s:g} s"

    def _note_failure(self, error: BaseException, *, is_excused: bool) -> None:
        """Log what a run raised, and count it unless an outage, or the loss of the lease, caused it."""
        if not is_excused:
            self.stats.note_failure(error, now_s=self.services.clock.now_s())
        if not isinstance(error, StallTimeout):
            # The projection itself has logged the event or the number of shards, and what follows.
            self.log.failed(error, was_logged=is_excused or isinstance(error, (ProjectionHalted, ShardingConflict)))

    def _abandon(self, run: Run) -> None:
        """Go on without a run that does not end, and wake up when it does."""
        self.abandoned_runs.append(run)
        run.add_done_callback(self.wakeup.wake)

    def _has_abandoned_runs(self) -> bool:
        """Whether an abandoned run is still alive."""
        self.abandoned_runs[:] = [run for run in self.abandoned_runs if not run.is_done]
        return bool(self.abandoned_runs)

    def _move(self, transition: Transition) -> None:
        self.state = next_state(self.state, transition)
