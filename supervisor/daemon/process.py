"""The process around the daemon: configuration, journal, loop, and an exit that nothing can hold up."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import uvloop

from supervisor.clock import SystemClock
from supervisor.config.finding import find_config
from supervisor.config.reading import read_config
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.exit_status import ExitStatus
from supervisor.errors import ConfigError
from supervisor.journal import open_journal, tell
from supervisor.systemd.notify import Notifier

if TYPE_CHECKING:
    from supervisor.journal import Journal

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
    journal.close(_FLUSH_S)
    if _is_held_up():
        _exit_now(status)
    return status


def _refuse(error: ConfigError, notifier: Notifier, clock: SystemClock) -> ExitStatus:
    journal = open_journal(level="info", format="auto", clock=clock)
    tell("config.invalid", faults=str(error), count=len(error.faults))
    notifier.failed(ExitStatus.CONFIG, status=f"The configuration is wrong: {error.faults[0]}")
    journal.close(_FLUSH_S)
    return ExitStatus.CONFIG


def _live(daemon: Daemon) -> ExitStatus:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        status = _run_until_done(loop, daemon)
        _end_leftovers(loop)
    finally:
        asyncio.set_event_loop(None)
    return status


def _run_until_done(loop: asyncio.AbstractEventLoop, daemon: Daemon) -> ExitStatus:
    """Run the loop until the daemon is done.

    A SystemExit or KeyboardInterrupt that a worker raises in a task of its own passes through the loop
    and stops it; the daemon lives on.
    """
    life = loop.create_task(daemon.run(), name="daemon")
    while True:
        try:
            return loop.run_until_complete(life)
        except (SystemExit, KeyboardInterrupt) as error:
            if life.done():
                raise
            tell("loop.interrupted", exc=error)


def _end_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    """Give tasks that workers started by themselves a moment to end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_LEFTOVERS_S))


def _is_held_up() -> bool:
    """Whether a thread of a worker's would keep the interpreter from ending."""
    return any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate())


def leave(status: ExitStatus, journal: Journal) -> NoReturn:
    """End the process at once: the operator asked three times."""
    tell("daemon.stopped", status=int(status), level="warning", reason="ended at once, as asked")
    journal.close(_FLUSH_S)
    _exit_now(status)


def _exit_now(status: ExitStatus) -> NoReturn:
    sys.stdout.flush()
    os._exit(status)
