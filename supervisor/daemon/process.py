"""The process around the daemon: configuration, journal, loop, and an exit that nothing can hold up.

At its own end the interpreter waits for every thread and exit handler that workers left, so it gets a deadline.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from supervisor.clock import SystemClock
from supervisor.config.loader import read_config
from supervisor.config.paths import find_config
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.signals import SignalOwningLoop
from supervisor.errors import ConfigError
from supervisor.exit_status import ExitStatus
from supervisor.journal import log_event, open_journal
from supervisor.systemd.notify import Notifier
from supervisor.threads import frame_stack, thread_frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from supervisor.journal import Journal

_FLUSH_TIMEOUT_S = 1.0
_LEFTOVERS_TIMEOUT_S = 0.5
# For exit handlers of workers that have something to put in order, and for threads that are about to end.
_EXIT_TIMEOUT_S = 1.0
_exit_status: list[ExitStatus] = []


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
        return _exit_invalid_config(error, notifier, clock)
    journal = open_journal(level=config.log.level, format=config.log.format, clock=clock)
    close_journal_at_exit(journal)
    daemon = Daemon(
        config,
        read_config=lambda: read_config(path, environ),
        exit_now=lambda status: exit_now(status, journal),
        notifier=notifier,
        journal=journal,
        clock=clock,
        rng=random.Random(),  # noqa: S311 - jitter
    )
    status = _run_loop(daemon)
    notifier.close()
    force_exit_after_timeout(status, journal)
    return status


def _exit_invalid_config(error: ConfigError, notifier: Notifier, clock: SystemClock) -> ExitStatus:
    journal = open_journal(level="info", format="auto", clock=clock)
    log_event("config.invalid", faults=str(error), count=len(error.faults))
    notifier.failed(ExitStatus.CONFIG, status=f"The configuration is wrong: {error.faults[0]}")
    journal.close(_FLUSH_TIMEOUT_S)
    return ExitStatus.CONFIG


def _run_loop(daemon: Daemon) -> ExitStatus:
    # It is never closed: what workers left in it would only complain.
    loop = SignalOwningLoop()
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(daemon.run(), name="daemon")
        _run_until_done(loop, task)
        _cancel_leftover_tasks(loop)
        return task.result()
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        log_event("daemon.failed", exc=error)
        return ExitStatus.SOFTWARE
    finally:
        asyncio.set_event_loop(None)


def _run_until_done(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    """Run the loop until `task` is done.

    A SystemExit or KeyboardInterrupt that a worker raises in a task of its own passes through the loop
    and stops it, and a worker may call `loop.stop()`; the daemon runs on.
    """
    while not task.done():
        try:
            loop.run_until_complete(_wait_for(task))
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            log_event("loop.interrupted", exc=error)
        except asyncio.CancelledError:
            continue  # a worker cancelled every task of the loop, this wait among them; `task` hears of it itself


async def _wait_for(task: Awaitable[object]) -> None:
    """Return when `task` is done; what it raised is for its owner."""
    await asyncio.wait((asyncio.ensure_future(task),))  # noqa: TID251 - it is a future


def _cancel_leftover_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Give tasks that workers started by themselves a short time to end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        _run_until_done(loop, loop.create_task(_wait_briefly(tasks)))


async def _wait_briefly(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=_LEFTOVERS_TIMEOUT_S)


def close_journal_at_exit(journal: Journal) -> None:
    """Close the journal at exit, after the exit handlers of workers: those are registered later and run earlier."""
    atexit.register(_at_exit, journal)


def _at_exit(journal: Journal) -> None:
    """Close the journal and end here: taking the interpreter apart takes longer than the whole stop."""
    _close(journal)
    if _exit_status:
        os._exit(_exit_status[-1])


def force_exit_after_timeout(status: ExitStatus, journal: Journal) -> None:
    """Let the interpreter end as it does, exit handlers and all, but end the process when that takes too long."""
    _exit_status.append(status)

    def watch() -> None:
        # It is never set: this thread ends with the process.
        threading.Event().wait(_EXIT_TIMEOUT_S)
        part, stack = _blocking_threads()
        log_event("stop.timed_out", part=part, limit_s=_EXIT_TIMEOUT_S, stack=stack)
        exit_now(status, journal)

    threading.Thread(target=watch, name="exit watchdog", daemon=True).start()


def exit_now(status: ExitStatus, journal: Journal) -> NoReturn:
    """End the process at once, with nothing but the journal written out."""
    _close(journal)
    os._exit(status)


def _close(journal: Journal) -> None:
    journal.close(_FLUSH_TIMEOUT_S)
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (AttributeError, OSError, ValueError):
            # The interpreter would try again, fail, and make 120 of the exit status.
            setattr(sys, name, None)


def _blocking_threads() -> tuple[str, str]:
    """Return the threads that keep the interpreter from ending, and their stacks."""
    held = [*_held_threads()]
    names = ", ".join(f"thread {thread.name}" for thread in held) or "Python's exit handlers"
    places = [_stack(thread) for thread in held or [threading.main_thread()]]
    return names, "\n\n".join(places)


def _held_threads() -> Iterator[threading.Thread]:
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            yield thread


def _stack(thread: threading.Thread) -> str:
    with contextlib.suppress(OSError):
        return frame_stack(thread_frame(thread.ident))
    return ""
