"""Embedded stores for the tests of this package."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import server_home
from support.store import StoreDaemon, kill_all_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that root's server can reach too; whatever still runs in it at the end is killed."""
    with server_home() as folder:
        yield folder
        kill_all_below(folder)


@pytest.fixture
def launch_daemon(home: Path) -> Iterator[Callable[..., StoreDaemon]]:
    """A maker of processes that run a store below `home`; nothing is waited for."""
    with contextlib.ExitStack() as stack:

        def launch(**options: Any) -> StoreDaemon:
            daemon = StoreDaemon(home, **options)
            stack.enter_context(daemon.process)
            stack.callback(daemon.process.kill)
            return daemon

        yield launch


@pytest.fixture
def run_daemon(launch_daemon: Callable[..., StoreDaemon]) -> Callable[..., StoreDaemon]:
    """The same, but each is waited for until its server accepts connections."""

    def run(**options: Any) -> StoreDaemon:
        daemon = launch_daemon(**options)
        daemon.wait()
        return daemon

    return run
