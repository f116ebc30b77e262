"""The requests of the control socket, and what the daemon answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from supervisor.daemon.components.workers import WorkersComponent
    from supervisor.daemon.reload import Reloader, ReloadResult
    from supervisor.daemon.state import DaemonState
    from supervisor.daemon.status import StatusReport


# The answer to every request that the stop overtakes.
STOPPING = {"ok": False, "error": "the daemon is stopping"}


class ControlApi:
    """Answers one request with `{"ok": true, …}` or `{"ok": false, "error": …}`."""

    def __init__(
        self, state: DaemonState, *, reloader: Reloader, workers: WorkersComponent, status: StatusReport
    ) -> None:
        self._state = state
        self._reloader = reloader
        self._workers = workers
        self._status = status

    async def handle_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        match request:
            case {"command": "status"}:
                return {"ok": True, "status": await self._status.whole()}
            case {"command": "reload"}:
                if self._state.is_stopping:
                    return STOPPING
                return _reload_answer(await self._reloader.request_or_join())
            case {"command": "dry-run"}:
                return _reload_answer(await self._reloader.preview())
            case {"command": "pause" | "resume" | "restart", "worker": str()} if self._state.is_stopping:
                return STOPPING
            case {"command": "pause" | "resume" | "restart" as command, "worker": str(worker)}:
                return await self._worker_command(command, worker)
            case _:
                return _error(f"unknown command {request.get('command')!r}; is the daemon older than this command?")

    async def _worker_command(self, command: str, worker: str) -> dict[str, Any]:
        commands = {"pause": self._workers.pause, "resume": self._workers.resume, "restart": self._workers.restart}
        try:
            await commands[command](worker)
        except SupervisorError as error:
            return _error(str(error))
        if self._state.is_stopping:
            return STOPPING  # whatever it has done, the stop undoes it
        self._state.notify()
        return {"ok": True}


def _reload_answer(result: ReloadResult) -> dict[str, Any]:
    return {
        "ok": result.outcome == "applied",
        "outcome": result.outcome,
        "lines": list(result.lines),
        "error": "\n".join(result.lines),
    }


def _error(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}
