"""`status`: what the running daemon does, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
import time
from typing import Any

from supervisor.cli.client import UNAVAILABLE, NoDaemon, ask
from supervisor.cli.columns import align, is_terminal
from supervisor.cli.nodes import holders, lag, node_lines, remembered
from supervisor.cli.output import complain, show
from supervisor.durations import format_duration

_LIMIT_S = 5.0
_CLEAR = "\x1b[H\x1b[2J"


def show_status(control: str | None, config: str | None, *, as_json: bool, watch: bool) -> int:
    """Print the status and return 0, or 69 when no daemon answers; or watch it until Ctrl-C."""
    was_there = False
    while True:
        try:
            status = ask(control, config, {"command": "status"}, limit_s=_LIMIT_S)["status"]
        except NoDaemon as error:
            complain(str(error))
            if not was_there:
                return UNAVAILABLE
            time.sleep(1.0)  # it may be restarting: that is what one watches for
            continue
        was_there = watch
        text = json.dumps(status, indent=None if watch else 2) if as_json else table(status)
        is_read = show(f"{_CLEAR}{text}" if watch and not as_json and is_terminal() else text)
        if not watch or not is_read:
            return 0
        time.sleep(1.0)


def table(status: dict[str, Any]) -> str:
    """Return the status as people read it."""
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
    """Return the table of workers; who holds a lease, and the lag, only where there are any."""
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
    """Return who holds a worker's leases: from the database, else from this node's memory, which is no older."""
    asked, known = holder_of.get(worker["name"]), remembered(worker)
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
