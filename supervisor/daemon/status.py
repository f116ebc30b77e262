"""The daemon's condition, the line for `systemctl status`, and the whole for `status --json`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import supervisor
from supervisor.daemon.state import Condition
from supervisor.database.monitor_policy import MonitorState
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.clock import Clock
    from supervisor.daemon.component import Component
    from supervisor.daemon.components.database import DatabaseComponent
    from supervisor.daemon.components.node import NodeComponent
    from supervisor.daemon.components.workers import WorkersComponent
    from supervisor.daemon.state import DaemonState
    from supervisor.database.monitor import ConnectionMonitor


class StatusReport:
    """Describes the daemon, from its state and from the status of each component.

    Args:
        state: The daemon's.
        components: All of them.
        database: Where the line begins.
        node: What all nodes do.
        workers: How many there are.
        clock: Time.
    """

    def __init__(
        self, state: DaemonState, components: Sequence[Component], *, database: DatabaseComponent, node: NodeComponent,
        workers: WorkersComponent, clock: Clock,
    ) -> None:  # fmt: skip
        self._state = state
        self._components = components
        self._database = database
        self._node = node
        self._workers = workers
        self._clock = clock

    def condition(self) -> Condition:
        """Return the daemon's condition."""
        if self._state.is_stopping:
            return Condition.STOPPING
        if not self._state.is_ready:
            return Condition.STARTING
        if (database := self._database.current) is not None and not database.is_up:
            return Condition.DATABASE_DOWN
        return Condition.DEGRADED if self.degraded() else Condition.RUNNING

    def degraded(self) -> list[str]:
        """Return every reason for which the daemon is degraded."""
        reasons = [reason for component in self._components if (reason := component.degraded()) is not None]
        if (incomplete := self._state.reload_incomplete) is not None:
            reasons.append(_incomplete_text(incomplete))
        return reasons

    def line(self) -> str:
        """Return one sentence for `systemctl status`."""
        state = self._state
        if state.exit_reason is not None:
            return f"Stopping ({state.exit_reason.text})"
        line = self._database_line()
        if state.reload_incomplete is not None:
            line += f". {_incomplete_text(state.reload_incomplete)}"
        if state.reload_error is not None:
            line += f". The last reload was refused: {state.reload_error}"
        return line

    def _database_line(self) -> str:
        database = self._database.current
        if database is None:
            return self._state.startup_step
        monitor = database.monitor
        match monitor.state:
            case MonitorState.UP if not self._state.is_ready:
                return f"{self._state.startup_step}; the database is there ({monitor.address})"
            case MonitorState.UP:
                down = self._workers.degraded()
                workers = self._workers.summary() if down is None else f"Degraded: {down}"
                others = [reason for each in (self._database, self._node) if (reason := each.degraded()) is not None]
                return "; ".join([f"{workers} on {monitor.address}", *others])
            case MonitorState.CONNECTING:
                return f"Connecting to {monitor.address}{self._failure_text(monitor)}"
            case MonitorState.DOWN:
                return f"The database is unreachable{self._failure_text(monitor)}; workers wait for it"
            case MonitorState.CLOSED:
                return "The database connection is closed"

    def _failure_text(self, monitor: ConnectionMonitor) -> str:
        if monitor.failure is None:
            return ""
        attempts = sum(monitor.outage.failures.values()) if monitor.outage else 0
        line = f": attempt {attempts}: {monitor.failure.reason}"
        if monitor.next_try_at_s is not None:
            # "Within": between two tries a probe checks every probe_interval whether anything listens again.
            line += f"; next try within {format_duration(max(0.0, monitor.next_try_at_s - self._clock.now_s()))}"
        return line

    async def whole(self) -> dict[str, Any]:
        """Return everything that `status --json` shows; no secrets, durations in seconds."""
        row = self._status_row()
        for component in self._components:
            row.update(component.status())
        row.update(await self._node.cluster_status(self._state.config))
        return row

    def _status_row(self) -> dict[str, Any]:
        state = self._state
        return {
            "name": state.config.name,
            "version": supervisor.__version__,
            "pid": os.getpid(),
            "config": str(state.config.path),
            "state": self.condition().value,
            "status": self.line(),
            "uptime_s": round(self._clock.now_s() - state.started_s, 1),
            "ready": state.is_ready,
            "database": {},
            "workers": [],
            "reload": {
                "last": state.last_reload,
                "refused": state.reload_error,
                "incomplete": state.reload_incomplete,
            },
            "journal": {},
        }


def _incomplete_text(text: str) -> str:
    return f"The last reload was applied in part: {text}"
