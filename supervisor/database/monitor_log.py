"""The journal entries of the connection monitor: one for each transition, however many workers it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.database.connect import Connected
    from supervisor.database.error_class import Failure
    from supervisor.database.monitor_policy import Outage


def log_connecting(address: str, dsn: str) -> None:
    """Log the first attempt."""
    log_event("database.connecting", address=address, dsn=dsn)


def log_still_connecting(outage: Outage, failure: Failure, *, now_s: float, next_try_s: float) -> None:
    """Log why the start still waits."""
    log_event("database.connecting", level="warning", **_reminder(outage, failure, now_s, next_try_s))


def log_still_down(outage: Outage, failure: Failure, *, now_s: float, next_try_s: float) -> None:
    """Log why the outage goes on."""
    log_event("database.still_down", **_reminder(outage, failure, now_s, next_try_s))


def log_connected(connected: Connected, outage: Outage, now_s: float) -> None:
    """Log the first connection."""
    version = connected.connection.get_server_version()
    log_event(
        "database.connected",
        address=connected.endpoint.address,
        attempts=sum(outage.failures.values()) + 1,
        took_s=round(now_s - outage.since_s, 3),
        # asyncpg reads "18.4" as 18.0.4, the way numbers were counted before PostgreSQL 10.
        server_version=f"{version.major}.{version.micro}",
    )


def log_lost(failure: Failure) -> None:
    """Log that the database is unreachable."""
    log_event("database.lost", **_cause(failure))


def log_recovered(address: str, outage: Outage, now_s: float) -> None:
    """Log the end of the outage."""
    log_event(
        "database.recovered",
        address=address,
        downtime_s=round(now_s - outage.since_s, 3),
        attempts=sum(outage.failures.values()) + 1,
        flaps=outage.flaps,
    )


def log_gave_up(outage: Outage, failure: Failure) -> None:
    """Log that the start gives up."""
    log_event("database.gave_up", attempts=outage.attempts, **_cause(failure))


def log_refused(failure: Failure) -> None:
    """Log that the start gives up because the server refuses the login, the database or a privilege."""
    log_event("database.gave_up", **_cause(failure))


def _cause(failure: Failure) -> dict[str, Any]:
    cause = {
        "reason": failure.reason,
        "error_class": failure.error_class.value,
        "address": failure.address,
        "error_type": type(failure.error).__name__,
    }
    return cause | ({"sqlstate": failure.sqlstate} if failure.sqlstate else {})


def _reminder(outage: Outage, failure: Failure, now_s: float, next_try_s: float) -> dict[str, Any]:
    return {
        "down_s": round(now_s - outage.since_s, 1),
        "attempts": sum(outage.failures.values()),
        "flaps": outage.flaps,
        "next_try_s": round(next_try_s, 1),
        **_cause(failure),
    }
