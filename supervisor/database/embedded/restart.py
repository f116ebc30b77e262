"""Keeps an embedded server running: whenever it ends by itself it is started again, with backoff."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from supervisor.backoff import Backoff, delay_s
from supervisor.clock import done_within
from supervisor.database.embedded import server_log
from supervisor.errors import SupervisorError
from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.database.embedded.server import EmbeddedServer

_RESTARTS = Backoff(initial_s=0.1, factor=2.0, max_s=30.0, jitter="none")
_STABLE_AFTER_S = 60.0


async def supervise(server: EmbeddedServer, *, clock: Clock) -> None:
    """Start the server again whenever it ends by itself; return when it was stopped.

    Logs `store.failed` and `store.started`. Keeps the server's log from growing without end.
    """
    attempt = 0
    while True:
        attempt = 0 if await _wait_for_exit(server, clock) else attempt
        if server.is_stopping:
            return
        log_event("store.failed", reason=_describe_end(server), path=str(server.path))
        attempt = await _restart(server, attempt, clock)


async def _restart(server: EmbeddedServer, attempt: int, clock: Clock) -> int:
    """Try until it runs again, and return how many attempts that makes."""
    while True:
        await clock.sleep(delay_s(_RESTARTS, attempt, 0.0))
        attempt += 1
        began_s = clock.now_s()
        try:
            await server.start()
        except SupervisorError as error:
            log_event("store.failed", reason=str(error), path=str(server.path))
        else:
            log_event("store.started", path=str(server.path), took_s=round(clock.now_s() - began_s, 3))
            return attempt


async def _wait_for_exit(server: EmbeddedServer, clock: Clock) -> bool:
    """Wait for the server's end, cutting its log each minute, and return whether it had been stable."""
    assert server.ended is not None  # noqa: S101 - it was started
    was_stable = False
    while not await done_within(server.ended, _STABLE_AFTER_S, clock=clock):
        was_stable = True
        with contextlib.suppress(SupervisorError):
            server_log.open_log(server.path).close()
    return was_stable


def _describe_end(server: EmbeddedServer) -> str:
    status = server.ended.result() if server.ended is not None else 0
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
    return f"the server {how}, its log is {server.path / server_log.NAME}"
