"""Process lifecycle: start the components in order, run, stop them in reverse.

```text
   journal ─▶ signals ─▶ loop watchdog ─▶ systemd heartbeat ─▶ handlers ─▶ embedded PostgreSQL ─▶ control socket
      ─▶ database ─▶ SQL schema ─▶ node ─▶ workers ─▶ pruning ─▶ ready
```

Start, stop, health, reload and status are loops over that list. The process ends by `DaemonState.request_exit`, once;
the first reason wins. Everything that runs in the background is a task of `BackgroundTasks`, and a task that crashes
ends the process.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, NoReturn

from supervisor.clock import done_within
from supervisor.config.model import EmbeddedStore, Server
from supervisor.daemon.components.database import DatabaseComponent, SchemaComponent
from supervisor.daemon.components.handlers import HandlersComponent
from supervisor.daemon.components.journal import JournalComponent
from supervisor.daemon.components.node import NodeComponent
from supervisor.daemon.components.pruning import PruningComponent
from supervisor.daemon.components.workers import WorkersComponent
from supervisor.daemon.control_api import STOPPING, ControlApi
from supervisor.daemon.control_server import ControlServer
from supervisor.daemon.loop_watchdog import LoopWatchdog
from supervisor.daemon.reload import TASK as RELOAD_TASK
from supervisor.daemon.reload import Reloader
from supervisor.daemon.signals import SignalHandling
from supervisor.daemon.state import DaemonState
from supervisor.daemon.status import StatusReport
from supervisor.daemon.systemd_heartbeat import SystemdHeartbeat
from supervisor.errors import ConfigError, SupervisorError
from supervisor.exit_status import ExitStatus
from supervisor.journal import log_event
from supervisor.runtime import Runtime
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.daemon.component import Component
    from supervisor.daemon.state import ExitReason
    from supervisor.errors import WorkerExhausted
    from supervisor.runtime import JournalPort
    from supervisor.systemd.notify import Notifier

_START_TASK = "start"
_TASKS_TIMEOUT_S = 1.0
# Above every deadline of the components themselves.
_SAFETY_MARGIN_S = 1.0


class Daemon:
    """Makes the components, and owns the order in which they start and stop.

    Args:
        config: The configuration.
        read_config: Reads it anew.
        exit_now: Ends the process at once, with a status.
        notifier: systemd's notify socket.
        journal: The process's journal.
        clock: Time.
        rng: For jitter.

    Attributes:
        state: What the daemon as a whole does.
        components: In the order in which they start.
    """

    def __init__(
        self, config: Config, *, read_config: Callable[[], Config], exit_now: Callable[[ExitStatus], NoReturn],
        notifier: Notifier, journal: JournalPort, clock: Clock, rng: Random,
    ) -> None:  # fmt: skip
        self.state = state = DaemonState(config, clock=clock)
        self.tasks = BackgroundTasks(self._on_crash)
        runtime = Runtime(clock=clock, rng=rng, tasks=self.tasks, notifier=notifier, journal=journal)
        self._clock = clock
        self._notifier = notifier
        self._exit_now = exit_now
        self._exit_requested = asyncio.Event()
        self._shown_status = ""

        self.components: list[Component] = []
        self.handlers = HandlersComponent(config, clock=clock, on_step=state.begin_step)
        embedded, server = self._server(config, runtime)
        self.workers = WorkersComponent(
            config, runtime=runtime, database=lambda: self.database.database, node=lambda: self.node,
            handlers=lambda: self.handlers.handlers, on_exhausted=self._on_exhausted,
            on_overrun=self._on_lease_overrun, on_status=self.refresh_status, on_step=state.begin_step,
        )  # fmt: skip
        self.database = DatabaseComponent(
            config, runtime=runtime, server=server, observer=self.workers, before_switch=self._release_leases,
            on_step=state.begin_step,
        )  # fmt: skip
        self.node = NodeComponent(
            config, runtime=runtime, database=self.database,
            on_projection_changed=self.workers.on_projection_changed, on_overrun=self._on_lease_overrun,
            on_step=state.begin_step,
        )  # fmt: skip
        self.status = StatusReport(
            state, self.components, database=self.database, node=self.node, workers=self.workers, clock=clock
        )
        self.reloader = Reloader(
            self.components, state, runtime=runtime, read_config=read_config, handlers=self.handlers,
            workers=self.workers, on_begin=self._on_reload_begin, on_end=self._on_reload_end,
        )  # fmt: skip
        control_api = ControlApi(state, reloader=self.reloader, workers=self.workers, status=self.status)
        self.control = ControlServer(config.daemon.control, control_api.handle_request, stopping=STOPPING)
        self.signals = SignalHandling(
            on_reload=self.reloader.request_from_signal,
            on_stop=lambda reason: state.request_exit(ExitStatus.OK, reason),
            on_force_stop=self.workers.force_stop,
            on_exit=self._on_third_stop_signal,
        )
        self.heartbeat = SystemdHeartbeat(
            notifier, clock=clock, tasks=self.tasks,
            needs_time=lambda: not state.is_ready or state.is_stopping or state.is_reloading,
            unhealthy=self.unhealthy, on_beat=self._on_beat,
        )  # fmt: skip
        # The order of the start, and of a reload; the stop is in reverse. The handlers are imported before the first
        # connection, and the control socket answers while it is made. It is opened after the lock of the embedded
        # PostgreSQL has been acquired, because a predecessor holds both until it has ended.
        self.components += [
            JournalComponent(config, journal),
            self.signals,
            LoopWatchdog(limit_s=config.daemon.stall_warning_s, workers=lambda: state.config.workers, clock=clock),
            self.heartbeat,
            self.handlers,
            *embedded,
            self.control,
            self.database,
            SchemaComponent(config, runtime=runtime, database=self.database, on_step=state.begin_step),
            self.node,
            self.workers,
            PruningComponent(config, database=lambda: self.database.database, clock=clock, tasks=self.tasks),
        ]
        state.observe(self._on_state)

    def _server(self, config: Config, runtime: Runtime) -> tuple[list[Component], Callable[[], Server]]:
        match config.database.target:
            case Server() as server:
                return [], lambda: server
            case EmbeddedStore() as target:
                # Only daemons with an embedded PostgreSQL pay for this import.
                from supervisor.daemon.components.embedded_database import EmbeddedDatabaseComponent  # noqa: PLC0415

                embedded = EmbeddedDatabaseComponent(
                    config, target, clock=runtime.clock, tasks=runtime.tasks, on_step=self.state.begin_step
                )
                return [embedded], lambda: embedded.server

    async def run(self) -> ExitStatus:
        """Start, run until the exit is requested, stop, and return the exit status."""
        self.tasks.start(self.start(), name=_START_TASK, critical=True)
        reason = await self._wait_for_exit()
        await self._stop(reason)
        return reason.status

    async def start(self) -> None:
        """Start the components in order; an error ends the daemon."""
        self.tasks.start(self.reloader.run(), name=RELOAD_TASK, critical=True)
        for component in self.components:
            await component.start()
            if component is self.database and self.state.config.daemon.ready == "started":
                # It connects from here on; a wrong dsn can be corrected by a reload.
                self._announce_ready()
                self.reloader.enable()
        await self._clock.sleep(0)  # the workers begin
        # What was made so far stays for good: the collector need not scan it again, ten thousand workers of it.
        gc.freeze()
        self.state.is_ready = True
        if self.state.config.daemon.ready == "connected":
            self._announce_ready()
        else:
            self.refresh_status()
        self.reloader.enable()

    def unhealthy(self) -> list[str]:
        """Return the names of the components that are stuck; the stop has deadlines of its own."""
        if self.state.is_stopping:
            return []
        now_s = self._clock.now_s()
        return [component.name for component in self.components if not component.is_healthy(now_s)]

    def refresh_status(self) -> None:
        """Show the status to systemd when it has changed."""
        line = self.status.line()
        if line != self._shown_status:
            self._shown_status = line
            self._notifier.status(line)

    async def _wait_for_exit(self) -> ExitReason:
        while self.state.exit_reason is None:
            try:
                await self._exit_requested.wait()
            except asyncio.CancelledError as error:
                # The daemon never cancels this task: a worker has cancelled every task of the loop.
                self._on_crash("daemon", error)
        return self.state.exit_reason

    async def _stop(self, reason: ExitReason) -> None:
        """Stop everything that was started, in reverse order, each step with a deadline."""
        log_event("daemon.stopping", reason=reason.text, level="info" if reason.status is ExitStatus.OK else "error")
        self._notifier.stopping(self.status.line())
        if reason.status is not ExitStatus.OK:
            self._notifier.failed(reason.status, status=reason.text)
        self.heartbeat.send()
        await self._wait_for_end(self.tasks.cancel(_START_TASK) | self.tasks.cancel(RELOAD_TASK))
        for component in reversed(self.components):
            timeout_s = component.stop_timeout_s
            stop = component.stop(self._clock.now_s() + timeout_s)
            await self._run_with_timeout(stop, timeout_s + _SAFETY_MARGIN_S, component.name)
        await self._wait_for_end(self.tasks.cancel_all())
        took_s = round(self._clock.now_s() - reason.at_s, 3)
        log_event("daemon.stopped", status=int(reason.status), took_s=took_s)

    async def _run_with_timeout(self, work: Coroutine[Any, Any, None], timeout_s: float, part: str) -> None:
        task = self.tasks.start(work, name=f"stop: {part}")
        if not await done_within(task, timeout_s, clock=self._clock):
            task.cancel()
            log_event("stop.timed_out", part=part, limit_s=timeout_s)

    async def _wait_for_end(self, tasks: set[asyncio.Task[Any]]) -> None:
        if not tasks:
            return
        done = asyncio.gather(*tasks, return_exceptions=True)
        if not await done_within(done, _TASKS_TIMEOUT_S, clock=self._clock):
            names = ", ".join(sorted(task.get_name() for task in tasks if not task.done()))
            log_event("stop.timed_out", part=names, limit_s=_TASKS_TIMEOUT_S)

    def _announce_ready(self) -> None:
        self.signals.restore()
        self._shown_status = self.status.line()
        self._notifier.ready(self._shown_status)
        if self._notifier.has_pending:
            self.heartbeat.wake()
        took_s = round(self._clock.now_s() - self.state.started_s, 3)
        log_event("daemon.ready", took_s=took_s, **self.workers.counts())

    async def _release_leases(self, new: Config) -> None:
        """Give the leases back before a reload replaces the connection that holds them."""
        await self.workers.stop_leased("the database connection changes")
        await self.node.release_before_switch(new)

    async def _on_beat(self) -> None:
        self.signals.restore()
        await self.control.recreate_if_removed()

    def _on_state(self) -> None:
        if self.state.is_stopping:
            self._exit_requested.set()  # the stop shows its status itself
        else:
            self.refresh_status()

    def _on_reload_begin(self) -> None:
        self._notifier.reloading()
        self.heartbeat.send()

    def _on_reload_end(self) -> None:
        # Without this READY systemd would wait for ever (systemd #37515), but STOPPING is final.
        if not self.state.is_stopping:
            self._shown_status = self.status.line()
            self._notifier.ready(self._shown_status)
        if self._notifier.has_pending:
            self.heartbeat.wake()

    def _on_exhausted(self, error: WorkerExhausted) -> None:
        self.state.request_exit(error.exit_status, str(error))

    def _on_crash(self, name: str, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            log_event("daemon.failed", error=f"something cancelled its task {name!r}, most likely a worker", task=name)
            reason = f"something cancelled the daemon's own task {name!r}, most likely a worker"
            self.state.request_exit(ExitStatus.SOFTWARE, reason)
            return
        if not isinstance(error, SupervisorError) or error.exit_status is ExitStatus.SOFTWARE:
            log_event("daemon.failed", exc=error, task=name)
            reason = f"a fault of the daemon itself: {type(error).__name__}: {error}"
            self.state.request_exit(ExitStatus.SOFTWARE, reason)
            return
        if isinstance(error, ConfigError):
            log_event("config.invalid", faults=str(error), count=len(error.faults))
        self.state.request_exit(error.exit_status, str(error))

    def _on_third_stop_signal(self) -> NoReturn:
        status = self.state.exit_reason.status if self.state.exit_reason else ExitStatus.OK
        self._exit_immediately(status, "ended at once, as asked")

    def _on_lease_overrun(self, worker: str) -> NoReturn:
        """End the process at once: a worker runs on without its lease, and another node may start it at any time."""
        log_event("lease.overrun", worker=worker)
        self._notifier.failed(ExitStatus.SOFTWARE, status=f"Worker {worker} did not stop after losing its lease")
        self._exit_immediately(ExitStatus.SOFTWARE, f"worker {worker} did not stop after losing its lease")

    def _exit_immediately(self, status: ExitStatus, reason: str) -> NoReturn:
        log_event("daemon.stopped", status=int(status), level="warning", reason=reason)
        self._exit_now(status)
