"""`status`: what the running daemon does, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from supervisor.cli.control_client import NoDaemon, send_request
from supervisor.cli.output import align, is_terminal, print_error, print_out
from supervisor.durations import format_duration
from supervisor.exit_status import ExitStatus

_LIMIT_S = 5.0
_CLEAR = "\x1b[H\x1b[2J"
_NODE_COLUMNS = ("NODE", "HOST", "PID", "SINCE", "LEASES", "LAG")
# With a thousand leases, too, a row is one line.
_MAX_NAMES = 4
_HELD = ("held", "recalled")


def show_status(control: str | None, config: str | None, *, as_json: bool, watch: bool) -> int:
    """Print the status and return 0; or print it again and again until Ctrl-C.

    Raises:
        NoDaemon: No daemon answers; later, while watching, it is waited for.
    """
    has_answered = False
    while True:
        try:
            answer = send_request(control, config, {"command": "status"}, limit_s=_LIMIT_S)
            if not answer["ok"]:
                raise NoDaemon(answer["error"])  # noqa: TRY301 - as if it had stopped already
            status = answer["status"]
        except NoDaemon as error:
            if not has_answered:
                raise
            print_error(str(error))
            time.sleep(1.0)  # it may be restarting, which is worth watching
            continue
        has_answered = watch
        text = json.dumps(status, indent=None if watch else 2) if as_json else table(status)
        is_read = print_out(f"{_CLEAR}{text}" if watch and not as_json and is_terminal() else text)
        if not watch or not is_read:
            return ExitStatus.OK
        time.sleep(1.0)


def table(status: dict[str, Any]) -> str:
    """Return the status as tables for people."""
    database = status["database"]
    since = f" for {format_duration(database['since_s'])}" if "since_s" in database else ""
    dsn = f", {database['dsn']}" if "dsn" in database else ""
    uptime = format_duration(status["uptime_s"])
    lines = [
        f"{status['name']}: {status['status']}",
        f"  pgsupervisor {status['version']}, pid {status['pid']}, up {uptime}, configuration {status['config']}",
        f"  database {database['state']}{since}{dsn}",
    ]
    if database.get("reason"):
        lines.append(f"  {database['reason']}")
    if status["journal"].get("dropped"):
        lines.append(f"  {status['journal']['dropped']} journal entries were lost")
    return "\n".join([*lines, "", *_workers(status), *node_lines(status)])


def _workers(status: dict[str, Any]) -> list[str]:
    """Return the table of workers, with columns for lease holders and lag where there are any."""
    titles = ["WORKER", "KIND", "STATE", "RUNNING", "RESTARTS", "FAILURES", "NEXT"]
    projections = {row["name"]: row for row in status.get("projections", [])}
    holder_of = holders(status) if "nodes" in status else None
    with_holder = [] if holder_of is None else ["HELD"]
    with_lag = ["LAG"] if projections else []
    is_known = "nodes" in status and status["cluster"]["problem"] is None
    rows = [[*titles, *with_holder, *with_lag, "LAST ERROR"]]
    for worker in status["workers"]:
        held = [] if holder_of is None else [_held(worker, holder_of, is_known=is_known)]
        behind = [lag(projections.get(worker["name"]))] if with_lag else []
        rows.append([*_cells(worker), *held, *behind, str(worker.get("last_error") or "")])
    return align(rows)


def _held(worker: dict[str, Any], holder_of: dict[str, str], *, is_known: bool) -> str:
    """Return the holder of a worker's leases: from the database, else as this node last knew, which is no older."""
    asked, known = holder_of.get(worker["name"]), locally_known_holder(worker)
    nobody = "by nobody" if worker["state"] == "standby" and is_known else ""
    return (asked or known or nobody) if is_known else (known or asked or nobody)


def _cells(worker: dict[str, Any]) -> list[str]:
    due = worker.get("next_run")
    return [
        str(worker["name"]),
        str(worker["kind"]),
        str(worker["state"]),
        f"{worker['running']}/{worker['replicas']}",
        str(worker["restarts"]),
        str(worker["failures"]),
        str(due)[11:19] if due else "",
    ]


def node_lines(status: dict[str, Any]) -> list[str]:
    """Return the table of nodes, or nothing where the daemon is not a node."""
    if "nodes" not in status:
        return []
    lines = ["", *align([_NODE_COLUMNS, *(_node_cells(node) for node in status["nodes"])])]
    problem, age_s = status["cluster"]["problem"], status["cluster"]["age_s"]
    if problem is not None:
        memory = "shown as this node last knew" if status["nodes"] else "the nodes are not known"
        known = memory if age_s is None else f"shown as of {format_duration(age_s)} ago"
        lines.append(f"  {problem}; {known}")
    if status["cluster"]["trouble"] is not None:
        lines.append(f"  this node: {status['cluster']['trouble']}")
    return lines


def holders(status: dict[str, Any]) -> dict[str, str]:
    """Return the holder of each worker's leases, for people; workers without a holder are left out."""
    held: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for node in status["nodes"]:
        for lease in node["leases"]:
            # A worker's name has no slash; its shards are `view/1of4`, …
            held.setdefault(lease["name"].partition("/")[0], []).append((node, lease["since"]))
    doubt = "?" if status["cluster"]["problem"] is not None else ""
    return {worker: _holder(pairs) + doubt for worker, pairs in held.items()}


def locally_known_holder(worker: dict[str, Any]) -> str | None:
    """Return the holder of a worker's leases as far as this node knows without the database; None: unknown."""
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


def _node_cells(node: dict[str, Any]) -> tuple[str, ...]:
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
    more = ", …" if len(names) > _MAX_NAMES or not is_all else ""
    return f"{f'{len(names)}: ' if is_all else ''}{', '.join(names[:_MAX_NAMES])}{more}"


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
    """Return a node's name without the host and pid, which have columns of their own."""
    name: str = node["name"]
    return name.removesuffix(f"@{node['host']}:{node['pid']}")


def _clock_time(text: str | None) -> str:
    """Return a time of today without its date, an earlier one with it, both in this machine's time zone."""
    if text is None:
        return ""
    time = datetime.fromisoformat(text).astimezone()
    is_today = time.date() == datetime.now(time.tzinfo).date()
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
