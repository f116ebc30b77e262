"""The process around the daemon: configuration, journal, loop, and an exit that nothing can hold up."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from supervisor.clock import SystemClock
from supervisor.config.loader import read_config
from supervisor.config.paths import find_config
from supervisor.daemon import exit_guard
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.signals import GuardedLoop
from supervisor.errors import ConfigError
from supervisor.exit_status import ExitStatus
from supervisor.journal import log_event, open_journal
from supervisor.systemd.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Awaitable

_FLUSH_S = 1.0
_LEFTOVERS_S = 0.5


def run(config_path: str | None) -> ExitStatus:
    """Run the daemon in this process until it ends, and return the exit status.

    Args:
        config_path: What `-c` says.
    """
    environ = dict(os.environ)
    notifier = Notifier.from_environment()
    clock = SystemClock()
    try:
        path = find_config(config_path, environ)
        config = read_config(path, environ)
    except ConfigError as error:
        return _refuse(error, notifier, clock)
    journal = open_journal(level=config.log.level, format=config.log.format, clock=clock)
    exit_guard.close_last(journal)
    daemon = Daemon(
        config,
        read_config=lambda: read_config(path, environ),
        notifier=notifier,
        journal=journal,
        clock=clock,
        rng=random.Random(),  # noqa: S311 - jitter
    )
    status = _live(daemon)
    notifier.close()
    exit_guard.guard_exit(status, journal)
    return status


def _refuse(error: ConfigError, notifier: Notifier, clock: SystemClock) -> ExitStatus:
    journal = open_journal(level="info", format="auto", clock=clock)
    log_event("config.invalid", faults=str(error), count=len(error.faults))
    notifier.failed(ExitStatus.CONFIG, status=f"The configuration is wrong: {error.faults[0]}")
    journal.close(_FLUSH_S)
    return ExitStatus.CONFIG


def _live(daemon: Daemon) -> ExitStatus:
    # It is never closed: what workers left in it would only complain.
    loop = GuardedLoop()
    asyncio.set_event_loop(loop)
    try:
        life = loop.create_task(daemon.run(loop), name="daemon")
        _run_until_done(loop, life)
        _end_leftovers(loop)
        return life.result()
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        log_event("daemon.failed", exc=error)
        return ExitStatus.SOFTWARE
    finally:
        asyncio.set_event_loop(None)


def _run_until_done(loop: asyncio.AbstractEventLoop, life: asyncio.Future[Any]) -> None:
    """Run the loop until `life` is done.

    A SystemExit or KeyboardInterrupt that a worker raises in a task of its own passes through the loop
    and stops it, and a worker may call `loop.stop()`; the daemon lives on.
    """
    while not life.done():
        try:
            loop.run_until_complete(_end_of(life))
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            log_event("loop.interrupted", exc=error)
        except asyncio.CancelledError:
            continue  # a worker cancelled every task of the loop, this wait among them; `life` hears of it itself


async def _end_of(life: Awaitable[object]) -> None:
    """Return when `life` is done; what it raised is for its owner."""
    await asyncio.wait((asyncio.ensure_future(life),))  # noqa: TID251 - it is a future


def _end_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    """Give tasks that workers started by themselves a moment to end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        _run_until_done(loop, loop.create_task(_moment(tasks)))


async def _moment(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=_LEFTOVERS_S)
