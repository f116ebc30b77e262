"""What the journal hears of the gate: one entry for each move, however many workers it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.database.connecting import Connected
    from supervisor.database.error_class import Failure
    from supervisor.database.gate_state import Outage


def tell_connecting(address: str, dsn: str) -> None:
    """Say that the first attempt begins."""
    log_event("database.connecting", address=address, dsn=dsn)


def tell_still_connecting(outage: Outage, failure: Failure, *, now_s: float, next_try_s: float) -> None:
    """Say that the start is still waiting, and why."""
    log_event("database.connecting", level="warning", **_reminder(outage, failure, now_s, next_try_s))


def tell_still_down(outage: Outage, failure: Failure, *, now_s: float, next_try_s: float) -> None:
    """Say that the outage goes on, and why."""
    log_event("database.still_down", **_reminder(outage, failure, now_s, next_try_s))


def tell_connected(link: Connected, outage: Outage, now_s: float) -> None:
    """Say that the first connection stands."""
    version = link.connection.get_server_version()
    log_event(
        "database.connected",
        address=link.endpoint.address,
        attempts=sum(outage.failures.values()) + 1,
        took_s=round(now_s - outage.since_s, 3),
        # asyncpg reads "18.4" as 18.0.4, the way numbers were counted before PostgreSQL 10.
        server_version=f"{version.major}.{version.micro}",
    )


def tell_lost(failure: Failure) -> None:
    """Say that the database is away."""
    log_event("database.lost", **_cause(failure))


def tell_recovered(address: str, outage: Outage, now_s: float) -> None:
    """Say that the outage is over."""
    log_event(
        "database.recovered",
        address=address,
        downtime_s=round(now_s - outage.since_s, 3),
        attempts=sum(outage.failures.values()) + 1,
        flaps=outage.flaps,
    )


def tell_gave_up(outage: Outage, failure: Failure) -> None:
    """Say that the start ends here."""
    log_event("database.gave_up", attempts=outage.attempts, **_cause(failure))


def tell_refused(failure: Failure) -> None:
    """Say that the start ends here because the server will not have us, however often it is asked."""
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
