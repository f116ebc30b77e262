"""The messages that systemd gets regularly, on a clock that the test owns."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from support.clock import FakeClock, settle
from support.entries import Entries
from support.inner_daemon import inner_daemon
from support.launching import config
from support.notify_socket import full_socket
from support.workers import ScriptedWorker, periodic, running

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = config("postgresql:///app")


def _read(reader: socket.socket) -> list[str]:
    """Return every datagram that has come."""
    reader.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(reader.recv(65536).decode())
    return found


async def _feedings(reader: socket.socket, clock: FakeClock) -> int:
    """Let a minute pass, and return how often the watchdog was fed in it."""
    count = 0
    for _ in range(12):  # a socket's queue may be as short as ten
        await clock.jump(5.0)
        count += _read(reader).count("WATCHDOG=1")
    return count


async def test_ready_after_a_full_socket_does_not_wait_for_the_next_heartbeat(tmp_path: Path) -> None:
    """Once it is woken the heartbeat tries again every 200 ms, and READY arrives as soon as the socket is read."""
    clock = FakeClock()
    with (
        full_socket(tmp_path / "notify") as reader,
        inner_daemon(tmp_path, _TEXT, clock=clock, notify=tmp_path / "notify") as daemon,
    ):
        await daemon.heartbeat.start()
        assert await clock.next_sleep() == pytest.approx(5.0)
        daemon._notifier.ready("Running")
        daemon.heartbeat.wake()
        assert await clock.next_sleep() == pytest.approx(0.2)
        await clock.jump(0.2)
        assert await clock.next_sleep() == pytest.approx(0.2)  # the socket was not read yet
        _read(reader)
        await clock.jump(0.2)
        assert "READY=1" in [message.partition("\n")[0] for message in _read(reader)]
        assert await clock.next_sleep() == pytest.approx(5.0)


async def test_a_stuck_component_stops_the_watchdog(tmp_path: Path) -> None:
    """While every component is healthy WATCHDOG=1 is sent; a stuck one is named once, and WATCHDOG=1 ends."""
    clock, worker = FakeClock(), ScriptedWorker(*[None] * 10)
    notify = tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader,
        Entries() as entries,
        inner_daemon(tmp_path, _TEXT, clock=clock, notify=notify, watchdog_limit_s=20.0) as daemon,
    ):
        reader.bind(str(notify))
        async with running((periodic(every_s=10.0), worker), clock=clock) as stage:
            daemon.workers._supervisor, daemon.state.is_ready = stage.supervisor, True
            await daemon.heartbeat.start()
            assert await _feedings(reader, clock) == 13
            for task in stage.supervisor._groups["tidy"].tasks:
                task.cancel()
            assert 2 <= await _feedings(reader, clock) < 12  # late is not broken at once
            assert await _feedings(reader, clock) == 0
            assert [entry.fields["part"] for entry in entries.of("daemon.unhealthy")] == ["workers"]
            daemon.tasks.cancel_all()
            await settle()
