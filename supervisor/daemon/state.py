"""The state of the daemon as a whole: what it starts, whether it is ready, why it ends, and its last reload."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.exit_status import ExitStatus


class Condition(Enum):
    """The daemon's condition in one word, as `status` shows it."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DATABASE_DOWN = "database-down"
    STOPPING = "stopping"


class ExitReason(NamedTuple):
    """Why the process ends.

    Attributes:
        status: The exit status.
        text: A clause for people.
        at_s: When that was decided.
    """

    status: ExitStatus
    text: str
    at_s: float


class DaemonState:
    """Values that several parts of the daemon read; observers are called after each change.

    Attributes:
        config: The configuration in force.
        startup_step: What the start is doing, for people.
        is_ready: Whether the workers have been started.
        is_reloading: Whether a reload is running.
        exit_reason: Why the process ends; None: it does not.
        started_s: When the process started, by the clock.
        last_reload: The outcome of the last reload, for people.
        reload_error: Why the last reload was refused; None: it was not.
        reload_incomplete: What a reload applied in part, until one applies; None: nothing.
    """

    def __init__(self, config: Config, *, clock: Clock) -> None:
        self.config = config
        self.startup_step = "Starting"
        self.is_ready = False
        self.is_reloading = False
        self.exit_reason: ExitReason | None = None
        self.started_s = clock.now_s()
        self.last_reload: str | None = None
        self.reload_error: str | None = None
        self.reload_incomplete: str | None = None
        self._clock = clock
        self._observers: list[Callable[[], object]] = []

    @property
    def is_stopping(self) -> bool:
        """Whether the stop has been requested."""
        return self.exit_reason is not None

    def observe(self, observer: Callable[[], object]) -> None:
        """Call `observer` after each change."""
        self._observers.append(observer)

    def begin_step(self, text: str) -> None:
        """Note what the start does now."""
        self.startup_step = text
        self.notify()

    def request_exit(self, status: ExitStatus, text: str) -> None:
        """Ask for the end of the process; only the first request counts."""
        if self.exit_reason is None:
            self.exit_reason = ExitReason(status, text, self._clock.now_s())
            self.notify()

    def notify(self) -> None:
        """Call the observers."""
        for observer in self._observers:
            observer()
