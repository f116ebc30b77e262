"""The daemon's parts in the test's own process, on a clock that the test owns."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.clock import MaxJitterRandom

from supervisor.clock import SystemClock
from supervisor.config.loader import read_config
from supervisor.daemon.daemon import Daemon
from supervisor.journal import open_journal
from supervisor.systemd.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supervisor.clock import Clock


@contextmanager
def inner_daemon(
    folder: Path, text: str, *, clock: Clock, notify: Path | None = None, watchdog_limit_s: float | None = None
) -> Iterator[Daemon]:
    """A daemon that has not begun; what the test starts of it is cancelled at the end."""
    path = folder / "app.toml"
    path.write_text(text)
    journal = open_journal(level="critical", format="json", clock=SystemClock(), environ={})
    notifier = Notifier(None if notify is None else str(notify), watchdog_limit_s=watchdog_limit_s)
    config = read_config(path, {})
    daemon = Daemon(
        config,
        read_config=lambda: read_config(path, {}),
        exit_now=os._exit,
        notifier=notifier,
        journal=journal,
        clock=clock,
        rng=MaxJitterRandom(),
    )
    try:
        yield daemon
    finally:
        daemon.tasks.cancel_all()
        notifier.close()
        journal.close(1.0)
