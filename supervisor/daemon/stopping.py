"""The stop: the start's steps in reverse, each with a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.clock import done_within
from supervisor.daemon.pruning import prune_no_more
from supervisor.exit_status import ExitStatus
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from supervisor.daemon.daemon import Daemon

# Connections are idle by then; a farewell takes a millisecond unless the peer hangs.
_POOL_LIMIT_S = 1.0
_STORE_LIMIT_S = 10.0
# The node bounds both its steps by a second itself.
_LEASES_LIMIT_S = 3.0
_TASKS_LIMIT_S = 1.0
# Above every deadline of the parts themselves: the net under them.
_NET_S = 10.0


async def stop(daemon: Daemon) -> None:
    """Stop everything that was started, in reverse order."""
    ending = daemon.ending
    assert ending is not None  # noqa: S101 - the stop follows from it
    log_event("daemon.stopping", reason=ending.reason, level="info" if ending.status is ExitStatus.OK else "error")
    daemon.notifier.stopping(f"Stopping ({ending.reason})")
    if ending.status is not ExitStatus.OK:
        daemon.notifier.failed(ending.status, status=ending.reason)
    daemon.pulse.beat()
    daemon.tasks.cancel("start")
    prune_no_more(daemon)
    await _stop_workers(daemon)
    if daemon.control is not None:
        daemon.control.close()
    if daemon.database is not None:
        await _bounded(daemon, daemon.database.close(limit_s=_POOL_LIMIT_S), _POOL_LIMIT_S + _NET_S, "pool")
    if daemon.blocked_loop is not None:
        daemon.blocked_loop.stop()
    await _end_tasks(daemon)
    if daemon.store is not None:
        began_s = daemon.clock.now_s()
        # The pulse has ended with the other tasks.
        daemon.notifier.extend(_STORE_LIMIT_S + _NET_S)
        await _bounded(daemon, daemon.store.stop(_STORE_LIMIT_S), _STORE_LIMIT_S + _NET_S, "store")
        if daemon.store.starts:
            log_event("store.stopped", took_s=round(daemon.clock.now_s() - began_s, 3))
    if daemon.state_lock is not None:
        daemon.state_lock.release()
    log_event("daemon.stopped", status=int(ending.status), took_s=round(daemon.clock.now_s() - ending.at_s, 3))


async def _stop_workers(daemon: Daemon) -> None:
    """Stop the workers, with their leases around them."""
    if daemon.leasing is not None:
        await _bounded(daemon, daemon.leasing.node.drain(), _LEASES_LIMIT_S, "leases")
    if daemon.supervisor is not None:
        # Bounded by the workers' own deadlines; what is left behind has been named.
        await daemon.supervisor.stop()
        if stubborn := daemon.supervisor.holding_leases():
            # Its lease goes with the process: given back now, it would let another node run the worker beside it.
            daemon.on_outlived(stubborn[0])
    if daemon.leasing is not None:
        await _bounded(daemon, daemon.leasing.leave(), _LEASES_LIMIT_S, "leases")


async def _bounded(daemon: Daemon, work: Coroutine[object, object, object], limit_s: float, part: str) -> None:
    task = daemon.tasks.start(work, name=f"stop: {part}")
    if not await done_within(task, limit_s, clock=daemon.clock):
        task.cancel()
        log_event("stop.overdue", part=part, limit_s=limit_s)


async def _end_tasks(daemon: Daemon) -> None:
    running = daemon.tasks.cancel_all()
    if running:
        done = asyncio.gather(*running, return_exceptions=True)
        if not await done_within(done, _TASKS_LIMIT_S, clock=daemon.clock):
            names = ", ".join(sorted(task.get_name() for task in running if not task.done()))
            log_event("stop.overdue", part=names, limit_s=_TASKS_LIMIT_S)
