"""The list of components: started in order, stopped in reverse, each stop with a deadline, and named when stuck."""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.entries import Entries
from support.inner_daemon import inner_daemon
from support.launching import config

from supervisor.clock import SystemClock
from supervisor.daemon.component import Component
from supervisor.errors import DatabaseAccessDenied
from supervisor.exit_status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supervisor.daemon.daemon import Daemon

LIMIT_S = 10.0
_TEXT = config("postgresql:///app", supervisor='state_dir = "state"')


class Noting(Component):
    """A component that notes its start and its stop."""

    def __init__(self, name: str, calls: list[str], *, error: Exception | None = None, hangs: bool = False) -> None:
        self.name = name
        self.stop_timeout_s = 0.05
        self._calls = calls
        self._error = error
        self._hangs = hangs
        self.is_stuck = False

    async def start(self) -> None:
        """Note it."""
        self._calls.append(f"start {self.name}")
        if self._error is not None:
            raise self._error

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - it stops at once, or never
        """Note it."""
        self._calls.append(f"stop {self.name}")
        if self._hangs:
            await asyncio.Event().wait()

    def is_healthy(self, now_s: float) -> bool:  # noqa: ARG002 - it is told what to say
        """Return what the test says."""
        return not self.is_stuck


@contextmanager
def daemon_of(folder: Path, *components: Noting) -> Iterator[tuple[Daemon, Entries]]:
    """A daemon with these components and no other."""
    with Entries() as entries, inner_daemon(folder, _TEXT, clock=SystemClock()) as daemon:
        daemon.components[:] = components
        yield daemon, entries
    gc.unfreeze()


async def _run(daemon: Daemon) -> ExitStatus:
    async with asyncio.timeout(LIMIT_S):
        return await daemon.run()


async def test_stops_in_the_reverse_of_the_start(tmp_path: Path) -> None:
    """Each component starts after the one before it and stops before that one."""
    calls: list[str] = []
    with daemon_of(tmp_path, Noting("a", calls), Noting("b", calls), Noting("c", calls)) as (daemon, entries):
        run = asyncio.ensure_future(_run(daemon))
        await entries.wait_for("daemon.ready")
        daemon.state.request_exit(ExitStatus.OK, "the test ends")
        daemon.state.request_exit(ExitStatus.CONFIG, "only the first reason counts")
        assert await run is ExitStatus.OK
    assert calls == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert entries.of("daemon.stopping")[0].fields["reason"] == "the test ends"


async def test_a_start_that_fails_stops_everything(tmp_path: Path) -> None:
    """The components after it were never started; all are stopped, and the error names the exit status."""
    calls: list[str] = []
    broken = Noting("b", calls, error=DatabaseAccessDenied("no"))
    with daemon_of(tmp_path, Noting("a", calls), broken, Noting("c", calls)) as (daemon, entries):
        assert await _run(daemon) is ExitStatus.NOPERM
    assert calls == ["start a", "start b", "stop c", "stop b", "stop a"]
    assert "daemon.failed" not in entries.events


async def test_a_start_that_crashes_is_a_fault_of_the_daemon(tmp_path: Path) -> None:
    """An error that is none of the project's ends the daemon with 70, with its traceback in the journal."""
    with daemon_of(tmp_path, Noting("a", [], error=ValueError("no"))) as (daemon, entries):
        assert await _run(daemon) is ExitStatus.SOFTWARE
    assert entries.of("daemon.failed")[0].fields["error_type"] == "ValueError"


async def test_a_stop_that_hangs_is_named_and_left(tmp_path: Path) -> None:
    """The other components are stopped all the same."""
    calls: list[str] = []
    hanging = Noting("b", calls, hangs=True)
    with daemon_of(tmp_path, Noting("a", calls), hanging, Noting("c", calls)) as (daemon, entries):
        run = asyncio.ensure_future(_run(daemon))
        await entries.wait_for("daemon.ready")
        daemon.state.request_exit(ExitStatus.OK, "the test ends")
        assert await run is ExitStatus.OK
    assert calls[3:] == ["stop c", "stop b", "stop a"]
    assert [entry.fields["part"] for entry in entries.of("stop.timed_out")] == ["b"]


async def test_stuck_components_are_named(tmp_path: Path) -> None:
    """Health is asked of every component; those that are stuck are named, once."""
    first, second = Noting("first", []), Noting("second", [])
    with daemon_of(tmp_path, first, second, Noting("third", [])) as (daemon, entries):
        daemon.heartbeat.send()
        assert "daemon.unhealthy" not in entries.events
        first.is_stuck = second.is_stuck = True
        for _ in range(2):
            daemon.heartbeat.send()
        assert [entry.fields["part"] for entry in entries.of("daemon.unhealthy")] == ["first, second"]
