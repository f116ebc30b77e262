"""What the control socket is asked, and what the daemon answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.daemon.status import status_of
from supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from supervisor.daemon.daemon import Daemon


async def answer(daemon: Daemon, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request: `{"ok": true, …}` or `{"ok": false, "error": …}`."""
    match request:
        case {"command": "status"}:
            return {"ok": True, "status": status_of(daemon) | await _nodes(daemon)}
        case {"command": "reload"}:
            if daemon.is_stopping:
                return _no("the daemon is stopping")
            outcome = await daemon.reloader.join()
            return {"ok": outcome.is_applied, "lines": list(outcome.lines), "error": "\n".join(outcome.lines)}
        case {"command": "dry-run"}:
            outcome = await daemon.reloader.preview()
            return {"ok": outcome.is_applied, "lines": list(outcome.lines), "error": "\n".join(outcome.lines)}
        case {"command": "pause" | "resume" | "restart" as command, "worker": str(worker)}:
            return await _order(daemon, command, worker)
        case _:
            return _no(f"unknown command {request.get('command')!r}; is the daemon older than this command?")


async def _nodes(daemon: Daemon) -> dict[str, Any]:
    """Return what the database says of all nodes, where this daemon is one."""
    if daemon.leasing is None:
        return {}
    from supervisor.daemon.cluster import question_of  # noqa: PLC0415 - most daemons have no leases

    question = question_of(daemon.config, daemon.leasing.node)
    return await daemon.leasing.cluster.look(daemon.database, question)


async def _order(daemon: Daemon, command: str, worker: str) -> dict[str, Any]:
    supervisor = daemon.supervisor
    if supervisor is None:
        return _no("the workers have not been started yet")
    try:
        match command:
            case "pause":
                await supervisor.pause(worker)
            case "resume":
                await supervisor.resume(worker)
            case _:
                if daemon.leasing is not None:
                    daemon.leasing.renew((worker,))
                await supervisor.restart(worker)
    except SupervisorError as error:
        return _no(str(error))
    daemon.on_status()
    return {"ok": True}


def _no(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}
