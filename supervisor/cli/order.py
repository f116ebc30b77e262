"""`reload`, `pause`, `resume`, `restart`: something the running daemon is to do."""

from __future__ import annotations

from supervisor.cli.client import UNAVAILABLE, NoDaemon, ask
from supervisor.cli.output import complain, show

# An import may take a minute, a changed worker its whole stop_timeout.
_LONG_S = 600.0


def reload(control: str | None, config: str | None, *, dry_run: bool) -> int:
    """Ask for a reload, wait for its outcome and return 0 when it was applied, 1 when it was refused."""
    try:
        answer = ask(control, config, {"command": "dry-run" if dry_run else "reload"}, limit_s=_LONG_S)
    except NoDaemon as error:
        complain(str(error))
        return UNAVAILABLE
    if answer["ok"]:
        show("\n".join(answer.get("lines", ())))
        return 0
    complain(f"{_NOT_APPLIED[answer.get('outcome', 'rejected'), dry_run]}:\n{answer['error']}")
    return 1


def order(control: str | None, config: str | None, command: str, worker: str) -> int:
    """Give an order for one worker and return 0 when it was carried out, 1 when it was refused."""
    try:
        answer = ask(control, config, {"command": command, "worker": worker}, limit_s=_LONG_S)
    except NoDaemon as error:
        complain(str(error))
        return UNAVAILABLE
    if answer["ok"]:
        show(f"{worker}: {_DONE[command]}")
        return 0
    complain(answer["error"])
    return 1


_NOT_APPLIED = {
    ("rejected", False): "Refused, the old configuration runs on",
    ("rejected", True): "Would be refused",
    ("incomplete", False): "Applied in part, the daemon is degraded until a reload applies",
}
_DONE = {"pause": "paused", "resume": "resumed", "restart": "restarted"}
