"""The life of the process, from the first breath of the loop to its end.

```text
   begin ─▶ start (import, store, control, connect, schema, join, workers) ─▶ ready ─▶ … ─▶ stop
     └────────────────────────── a signal, a fault ───────────────────────────▲
```

Whatever ends the life does so by `end`, once; the first reason wins. Everything that runs in the
background is a task of `tasks`, and a task that crashes ends the life.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import supervisor
from supervisor.daemon import exit_guard, signals
from supervisor.daemon.blocked_loop import BlockedLoop
from supervisor.daemon.pulse import Pulse
from supervisor.daemon.reload import Reloader
from supervisor.daemon.starting import Start
from supervisor.daemon.status import status_line
from supervisor.daemon.stopping import stop
from supervisor.errors import (
    ConfigError,
    ConnectAttemptsExhausted,
    ControlSocketInUse,
    DatabaseAccessDenied,
    EmbeddedDatabaseFailed,
    EmbeddedDatabaseLocked,
    EmbeddedDatabaseMisconfigured,
    SchemaIncompatible,
    WorkerExhausted,
)
from supervisor.exit_status import ExitStatus
from supervisor.journal import journal_asyncio_exception, log_event
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.daemon.control import ControlServer
    from supervisor.daemon.leasing import Leasing
    from supervisor.daemon.signals import GuardedLoop
    from supervisor.database.database import Database
    from supervisor.database.embedded.locks import StateLock
    from supervisor.database.embedded.server import EmbeddedServer
    from supervisor.database.error_class import Failure
    from supervisor.database.monitor import ConnectionMonitor
    from supervisor.journal import Journal
    from supervisor.supervision.supervisor import Supervisor
    from supervisor.systemd.notify import Notifier


class Ending(NamedTuple):
    """Why the process ends.

    Attributes:
        status: What it exits with.
        reason: A clause for people.
        at_s: When that was decided.
    """

    status: ExitStatus
    reason: str
    at_s: float


# One row for each reaction of the error tree; anything else is a fault of the daemon itself.
_STATUS_OF = {
    ConfigError: ExitStatus.CONFIG,
    ConnectAttemptsExhausted: ExitStatus.UNAVAILABLE,
    DatabaseAccessDenied: ExitStatus.NOPERM,
    SchemaIncompatible: ExitStatus.CONFIG,
    EmbeddedDatabaseLocked: ExitStatus.TEMPFAIL,
    EmbeddedDatabaseMisconfigured: ExitStatus.CONFIG,
    EmbeddedDatabaseFailed: ExitStatus.UNAVAILABLE,
    ControlSocketInUse: ExitStatus.TEMPFAIL,
    WorkerExhausted: ExitStatus.SOFTWARE,
}


class Daemon:
    """The composition root: owns every part and the order in which they come and go.

    Attributes:
        config: The configuration in force.
        phase: What the start is doing, for people.
        is_ready: Whether READY=1 has been sent and the workers run.
        ending: Why the process ends, once it does.
        refused_reload: Why the last reload was refused, while it was.
        last_reload: What the last reload came to, for people.
    """

    def __init__(
        self, config: Config, *, read_config: Callable[[], Config], notifier: Notifier, journal: Journal,
        clock: Clock, rng: Random,
    ) -> None:  # fmt: skip
        self.config = config
        self.read_config = read_config
        self.notifier = notifier
        self.journal = journal
        self.clock = clock
        self.rng = rng
        self.tasks = BackgroundTasks(self._on_crash)
        self.phase = "Starting"
        self.is_ready = False
        self.started_s = clock.now_s()
        self.refused_reload: str | None = None
        self.last_reload: str | None = None
        self.ending: Ending | None = None
        self.functions: Mapping[str, Any] = {}
        self.database: Database | None = None
        self.supervisor: Supervisor | None = None
        # Only where a worker needs a lease.
        self.leasing: Leasing | None = None
        self.prunes = False
        self.store: EmbeddedServer | None = None
        self.state_lock: StateLock | None = None
        self.control: ControlServer | None = None
        self.reloader = Reloader(self)
        self.pulse = Pulse(self)
        self.blocked_loop: BlockedLoop | None = None
        self._loop: GuardedLoop | None = None
        self._ends = asyncio.Event()
        self._stop_signals = 0
        self._shown_status = ""

    @property
    def is_stopping(self) -> bool:
        """Whether the end has begun."""
        return self.ending is not None

    @property
    def ending_reason(self) -> str:
        """Why, for people."""
        return self.ending.reason if self.ending else ""

    async def run(self, loop: GuardedLoop) -> ExitStatus:
        """Live on `loop`, and return the exit status."""
        self._begin(loop)
        self.tasks.start(Start(self).run(), name="start", critical=True)
        ending = await self._end()
        await stop(self)
        return ending.status

    async def _end(self) -> Ending:
        """Wait for the end to begin."""
        while self.ending is None:
            try:
                await self._ends.wait()
            except asyncio.CancelledError as error:
                # Nobody of ours cancels the life itself: a worker has cancelled every task of the loop.
                self._on_crash("daemon", error)
        return self.ending

    def _begin(self, loop: GuardedLoop) -> None:
        loop.set_exception_handler(journal_asyncio_exception)
        loop.install(self.on_signal)
        self._loop = loop
        log_event("daemon.starting", version=supervisor.__version__, config=str(self.config.path))
        self.blocked_loop = BlockedLoop(
            loop,
            limit_s=self.config.daemon.stall_warning_s,
            workers=lambda: self.config.workers,
            clock=self.clock,
        )
        self.blocked_loop.start()
        self.tasks.start(self.pulse.run(), name="pulse", critical=True)
        self.tasks.start(self.reloader.run(), name="reload", critical=True)

    # What happens

    def run_gate(self, gate: ConnectionMonitor) -> None:
        """Put a gate in force; the one before it ends."""
        self.tasks.cancel("gate")
        self.tasks.start(gate.run(), name="gate", critical=True)

    def end(self, status: ExitStatus, reason: str) -> None:
        """Begin the end of the process; only the first call counts."""
        if self.ending is None:
            self.ending = Ending(status, reason, self.clock.now_s())
            self._ends.set()

    def on_signal(self, number: signal.Signals) -> None:
        """Hear of a signal, on the loop."""
        if number is signal.SIGHUP and not signals.terminal_is_gone():
            self.reloader.signalled()
            return
        self._stop_signals += 1
        if self._stop_signals == 1:
            why = "the terminal was closed" if number is signal.SIGHUP else f"asked by {number.name}"
            self.end(ExitStatus.OK, why)
        elif self._stop_signals > 2:
            self._leave()
        elif self.supervisor is not None:
            self.supervisor.force_stop()

    def retake_signals(self) -> None:
        """Take back the signals that an import or a worker took: a SIGHUP could kill the daemon."""
        if self._loop is not None:
            self._loop.retake()

    def _leave(self) -> NoReturn:
        """End the process at once: the operator asked three times."""
        status = self.ending.status if self.ending else ExitStatus.OK
        self._fall(status, "ended at once, as asked")

    def on_outlived(self, worker: str) -> NoReturn:
        """End the process at once: a worker runs on without the right to, and another node may run it any moment."""
        log_event("lease.outlived", worker=worker)
        self.notifier.failed(ExitStatus.SOFTWARE, status=f"Worker {worker} outlived its lease")
        self._fall(ExitStatus.SOFTWARE, f"worker {worker} outlived its lease")

    def _fall(self, status: ExitStatus, reason: str) -> NoReturn:
        log_event("daemon.stopped", status=int(status), level="warning", reason=reason)
        exit_guard.exit_now(status, self.journal)

    def _on_crash(self, name: str, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            log_event("daemon.failed", error=f"something cancelled its task {name!r}, most likely a worker", task=name)
            self.end(ExitStatus.SOFTWARE, f"something cancelled the daemon's own task {name!r}, most likely a worker")
            return
        status = next((known for kind, known in _STATUS_OF.items() if isinstance(error, kind)), None)
        if status is None:
            log_event("daemon.failed", exc=error, task=name)
            self.end(ExitStatus.SOFTWARE, f"a fault of the daemon itself: {type(error).__name__}: {error}")
            return
        if isinstance(error, ConfigError):
            log_event("config.invalid", faults=str(error), count=len(error.faults))
        self.end(status, str(error))

    def on_exhausted(self, error: WorkerExhausted) -> None:
        """Hear of a worker whose end is the daemon's end."""
        self.end(ExitStatus.SOFTWARE, str(error))

    # What the gate says (GateListener)

    def on_down(self, failure: Failure, *, announced: bool) -> None:  # noqa: ARG002 - the gate has told why
        """Say that the workers are parked."""
        if self.supervisor is not None and announced:
            self.supervisor.on_database_down()
        self.on_status()

    def on_up(self, *, announced: bool) -> None:
        """Say that the workers go on; those that are parked notice by themselves."""
        if self.supervisor is not None:
            self.supervisor.on_database_up(was_logged=announced)
        self.on_status()

    def on_stable(self) -> None:
        """Say that the workers go on after an outage that came and went."""
        if self.supervisor is not None:
            self.supervisor.on_database_up()
        self.on_status()

    def on_status(self) -> None:
        """Show the status to systemd when it has changed."""
        line = status_line(self)
        if line != self._shown_status:
            self._shown_status = line
            self.notifier.status(line)

    def counts(self) -> dict[str, Any]:
        """Return how many workers there are, and instances where these are more."""
        workers, instances = self.supervisor.counts() if self.supervisor else (len(self.config.workers), 0)
        return {"workers": workers} | ({"instances": instances} if instances > workers else {})

    def journal_counts(self) -> dict[str, int]:
        """Return how much was written, folded and dropped."""
        counts = self.journal.counts
        return {"written": counts.written, "folded": counts.folded, "dropped": counts.dropped}
