"""The part of `status` that is about all nodes: who lives, who holds what, and who lags."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from supervisor.cli.columns import align
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLUMNS = ("NODE", "HOST", "PID", "SINCE", "LEASES", "LAG")
# With a thousand leases a row still is one line.
_MOST_NAMES = 4


def node_lines(status: dict[str, Any]) -> list[str]:
    """Return the table of nodes, or nothing where the daemon is none."""
    if "nodes" not in status:
        return []
    lines = ["", *align([_COLUMNS, *(_cells(node) for node in status["nodes"])])]
    problem, age_s = status["cluster"]["problem"], status["cluster"]["age_s"]
    if problem is not None:
        known = "nothing is known of the nodes" if age_s is None else f"this was so {format_duration(age_s)} ago"
        lines.append(f"  {problem}; {known}")
    return lines


def holders(worker: str, nodes: Iterable[dict[str, Any]]) -> str:
    """Return who holds the leases of a worker, for people."""
    held = [
        (node, lease)
        for node in nodes
        for lease in node["leases"]
        if lease["name"] == worker or lease["name"].startswith(f"{worker}/")
    ]
    if len(held) > 1:
        here = sum(1 for node, _ in held if node["this"])
        return f"{here} here, {len(held) - here} elsewhere"
    return "".join(_holder(node, lease["since"]) for node, lease in held)


def lag(row: dict[str, Any] | None) -> str:
    """Return how far a node or a projection lags: `0`, `12 events, 0.4s`, `~500000 events, 3m`."""
    if row is None or row["lag_events"] is None:
        return ""
    events, age_s = row["lag_events"], row["lag_s"]
    if row["lag_exact"] and not events:
        return "0"
    noun = "event" if events == 1 else "events"
    age = "" if age_s is None else f", {format_duration(round(age_s, 1))}"
    return f"{'' if row['lag_exact'] else '~'}{events} {noun}{age}"


def _cells(node: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{node['name']} (this)" if node["this"] else node["name"],
        node["host"],
        str(node["pid"]),
        _clock_time(node["since"]),
        _leases([lease["name"] for lease in node["leases"]]),
        lag(node),
    )


def _leases(names: list[str]) -> str:
    if not names:
        return "0"
    more = ", …" if len(names) > _MOST_NAMES else ""
    return f"{len(names)}: {', '.join(names[:_MOST_NAMES])}{more}"


def _holder(node: dict[str, Any], since: str) -> str:
    where = "here" if node["this"] else f"{node['name']} on {node['host']}, pid {node['pid']}"
    return f"{where} since {_clock_time(since)}"


def _clock_time(text: str | None) -> str:
    """Return a time of today by the clock, an earlier one with its date, both in this machine's zone."""
    if text is None:
        return ""
    time = datetime.fromisoformat(text).astimezone()
    is_today = time.date() == datetime.now(time.tzinfo).date()
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
