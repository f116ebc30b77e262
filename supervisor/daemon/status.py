"""What the daemon says of itself: the line for systemd and the whole for `status`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import supervisor
from supervisor.database.monitor_policy import MonitorState
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from supervisor.daemon.daemon import Daemon
    from supervisor.database.database import Database


def status_line(daemon: Daemon) -> str:
    """Return one sentence for `systemctl status`."""
    if daemon.is_stopping:
        return f"Stopping ({daemon.ending_reason})"
    line = daemon.phase if daemon.database is None else _database_line(daemon, daemon.database)
    if daemon.refused_reload is not None:
        line += f". The last reload was refused: {daemon.refused_reload}"
    return line


def _database_line(daemon: Daemon, database: Database) -> str:
    gate = database.monitor
    match gate.state:
        case MonitorState.UP if not daemon.is_ready:
            return f"{daemon.phase}; the database is there ({gate.address})"
        case MonitorState.UP:
            return f"{_workers_line(daemon)} on {gate.address}{_hunger(database)}{_trouble(daemon)}"
        case MonitorState.CONNECTING:
            return f"Connecting to {gate.address}{_why(daemon, database)}"
        case MonitorState.DOWN:
            return f"The database is away{_why(daemon, database)}; workers wait for it"
        case MonitorState.CLOSED:
            return "The database connection is closed"


def _why(daemon: Daemon, database: Database) -> str:
    gate = database.monitor
    if gate.failure is None:
        return ""
    attempts = sum(gate.outage.failures.values()) if gate.outage else 0
    line = f": attempt {attempts}: {gate.failure.reason}"
    if gate.next_try_at_s is not None:
        # "Within": between two tries it is looked every probe_interval whether anything listens again.
        line += f"; next try within {format_duration(max(0.0, gate.next_try_at_s - daemon.clock.now_s()))}"
    return line


def _hunger(database: Database) -> str:
    starved = database.exhausted
    return f"; the pool has no connection left to give: {starved.reason}" if starved is not None else ""


def _trouble(daemon: Daemon) -> str:
    trouble = daemon.leasing.node.problem if daemon.leasing is not None else None
    return f"; leases: {trouble}" if trouble is not None else ""


def _workers_line(daemon: Daemon) -> str:
    counts = daemon.counts()
    noun = "worker" if counts["workers"] == 1 else "workers"
    many = f" ({counts['instances']} instances)" if "instances" in counts else ""
    ill = daemon.supervisor.unhealthy() if daemon.supervisor else {}
    if not ill:
        paused = daemon.supervisor.paused() if daemon.supervisor else 0
        rest = f", {paused} of them paused" if paused else ""
        return f"Running {counts['workers']} {noun}{many}{rest}"
    first = [f"{name}: {state}" for name, state in list(ill.items())[:3]]
    more = ["…"] if len(ill) > len(first) else []
    is_are = "is" if len(ill) == 1 else "are"
    return f"Degraded: {len(ill)} of {counts['workers']} {noun} {is_are} down ({', '.join(first + more)})"


def status_of(daemon: Daemon) -> dict[str, Any]:
    """Return everything that `status --json` shows; no secrets, durations in seconds."""
    now_s = daemon.clock.now_s()
    return {
        "name": daemon.config.name,
        "version": supervisor.__version__,
        "pid": os.getpid(),
        "config": str(daemon.config.path),
        "state": _state(daemon),
        "status": status_line(daemon),
        "uptime_s": round(now_s - daemon.started_s, 1),
        "ready": daemon.is_ready,
        "database": _database(daemon, now_s),
        "workers": daemon.supervisor.status() if daemon.supervisor else [],
        "reload": {"last": daemon.last_reload, "refused": daemon.refused_reload},
        "journal": daemon.journal_counts(),
    }


def _state(daemon: Daemon) -> str:
    if daemon.is_stopping:
        return "stopping"
    if not daemon.is_ready:
        return "starting"
    if daemon.database is not None and not daemon.database.is_up:
        return "database-down"
    is_starved = daemon.database is not None and daemon.database.exhausted is not None
    is_ill = "Degraded" in _workers_line(daemon)
    return "degraded" if is_starved or is_ill or _trouble(daemon) else "running"


def _database(daemon: Daemon, now_s: float) -> dict[str, Any]:
    database = daemon.database
    if database is None:
        return {"state": "absent"}
    gate = database.monitor
    return {
        "state": gate.state.value,
        "dsn": str(gate.server.dsn),
        "address": gate.address,
        "since_s": round(now_s - gate.state_since_s, 1),
        "reason": gate.failure.reason if gate.failure and not database.is_up else None,
        "attempts": sum(gate.outage.failures.values()) if gate.outage else 0,
        "next_try_s": round(max(0.0, gate.next_try_at_s - now_s), 1) if gate.next_try_at_s is not None else None,
        "pool": database.pool_counts(),
    }
