"""The part of `status` that is about all nodes: who lives, who holds what, and who lags."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from supervisor.cli.columns import align
from supervisor.durations import format_duration

_COLUMNS = ("NODE", "HOST", "PID", "SINCE", "LEASES", "LAG")
# With a thousand leases a row still is one line.
_MOST_NAMES = 4
_HELD = ("held", "recalled")


def node_lines(status: dict[str, Any]) -> list[str]:
    """Return the table of nodes, or nothing where the daemon is none."""
    if "nodes" not in status:
        return []
    lines = ["", *align([_COLUMNS, *(_cells(node) for node in status["nodes"])])]
    problem, age_s = status["cluster"]["problem"], status["cluster"]["age_s"]
    if problem is not None:
        memory = "this is what this node remembers" if status["nodes"] else "nothing is known of the nodes"
        known = memory if age_s is None else f"this was so {format_duration(age_s)} ago"
        lines.append(f"  {problem}; {known}")
    if status["cluster"]["trouble"] is not None:
        lines.append(f"  this node: {status['cluster']['trouble']}")
    return lines


def holders(status: dict[str, Any]) -> dict[str, str]:
    """Return for each worker whose leases are held who holds them, for people."""
    held: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for node in status["nodes"]:
        for lease in node["leases"]:
            # A worker's name has no slash; its shards are `view/1of4`, …
            held.setdefault(lease["name"].partition("/")[0], []).append((node, lease["since"]))
    doubt = "?" if status["cluster"]["problem"] is not None else ""
    return {worker: _holder(pairs) + doubt for worker, pairs in held.items()}


def remembered(worker: dict[str, Any]) -> str | None:
    """Return who holds a worker's leases as far as this node knows without asking, for people; None: it does not."""
    here = [lease for lease in worker.get("leases", ()) if lease["standing"] in _HELD]
    others = [lease["holder"] for lease in worker.get("leases", ()) if lease["holder"] is not None]
    if not here and not others:
        return None
    if len(here) + len(others) > 1:
        return f"{len(here)} here, {len(others)} elsewhere"
    return "here" if here else _elsewhere(others[0], others[0]["since"])


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
        f"{_daemon(node)} (this)" if node["this"] else _daemon(node),
        node["host"],
        str(node["pid"]),
        _clock_time(node["since"]),
        _leases([lease["name"] for lease in node["leases"]], is_all=node["this"] or node["since"] is not None),
        lag(node),
    )


def _leases(names: list[str], *, is_all: bool) -> str:
    if not names:
        return "0" if is_all else "?"
    more = ", …" if len(names) > _MOST_NAMES or not is_all else ""
    return f"{f'{len(names)}: ' if is_all else ''}{', '.join(names[:_MOST_NAMES])}{more}"


def _holder(held: list[tuple[dict[str, Any], str]]) -> str:
    if len(held) > 1:
        here = sum(1 for node, _ in held if node["this"])
        return f"{here} here, {len(held) - here} elsewhere"
    [(node, since)] = held
    return f"here{_since(since)}" if node["this"] else _elsewhere(node, since)


def _elsewhere(node: dict[str, Any], since: str | None) -> str:
    if not node["name"]:
        return "by a session that is no node's"
    text = f"{_daemon(node)} on {node['host']}, pid {node['pid']}"
    return f"{text},{_since(since)}" if since is not None else text


def _since(since: str | None) -> str:
    return "" if since is None else f" since {_clock_time(since)}"


def _daemon(node: dict[str, Any]) -> str:
    """Return a node's name without what stands beside it."""
    name: str = node["name"]
    return name.removesuffix(f"@{node['host']}:{node['pid']}")


def _clock_time(text: str | None) -> str:
    """Return a time of today by the clock, an earlier one with its date, both in this machine's zone."""
    if text is None:
        return ""
    time = datetime.fromisoformat(text).astimezone()
    is_today = time.date() == datetime.now(time.tzinfo).date()
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
