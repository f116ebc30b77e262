"""One embedded store, two daemons: a predecessor that drains, or that was killed, and its successor."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from support.launching import IDLE, ONE_WORKER, Launcher, launching
from support.postgres import server_home

from supervisor.database.embedded.orphans import processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# After SIGTERM it works on until a file says that it is done.
_DRAINS = """
    import asyncio
    from pathlib import Path

    async def work(ctx):
        while not ctx.stopping:
            await ctx.sleep(3600)
        ctx.log.info("draining")
        while not Path(__file__).with_name("done").exists():
            await asyncio.sleep(0.01)
        await ctx.db.execute("create table drained ()")
"""
# Says each number once it is committed.
_WRITES = """
    import asyncio, itertools

    async def work(ctx):
        await ctx.db.execute("create table if not exists numbers (writer int, number int)")
        rows = await ctx.db.fetch("select writer, number from numbers")
        ctx.log.info("found", numbers=" ".join(f"{row[0]}/{row[1]}" for row in rows))
        await asyncio.gather(*(write(ctx, writer) for writer in range(4)))

    async def write(ctx, writer):
        for number in itertools.count():
            if ctx.stopping:
                break
            await ctx.db.execute("insert into numbers values ($1, $2)", writer, number)
            ctx.log.info("committed", number=f"{writer}/{number}")
            await asyncio.sleep(0.001)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for both daemons and their store."""
    with server_home() as home:
        yield home


@pytest.fixture
def launch(home: Path) -> Iterator[Launcher]:
    """A starter of daemons."""
    with launching(home) as launcher:
        yield launcher


def _config(home: Path) -> str:
    return f'[supervisor]\n[database]\ndsn = "embedded:{home}/store"\n{ONE_WORKER}'


def _at_s(entry: dict[str, str]) -> float:
    return datetime.fromisoformat(entry["ts"]).timestamp()


def test_a_successor_waits_for_a_drain_and_takes_over_at_once(launch: Launcher, home: Path) -> None:
    """While the predecessor drains the successor names it and waits; it has the store as soon as that is let go."""
    first = launch.ready(_config(home), _DRAINS, folder="first")
    second = launch(_config(home), folder="second")
    locked = second.wait_for("store.locked")
    assert (locked["holder_pid"], locked["holder_host"]) == (first.pid, os.uname().nodename)
    assert str(first.pid) in locked["message"]
    first.signal(signal.SIGTERM)
    first.wait_for("draining")
    assert not second.said("store.unlocked")
    (first.folder / "done").touch()
    assert first.wait() == 0
    unlocked = second.wait_for("store.unlocked")
    (stopped,) = first.said("store.stopped")
    assert 0 <= _at_s(unlocked) - _at_s(stopped) < 1.0
    second.wait_for("daemon.ready")
    assert second.stop() == 0
    assert processes_of(home / "store" / "data") == ()


def test_a_stale_note_with_a_reused_pid_is_no_hindrance(launch: Launcher, home: Path) -> None:
    """A note of a killed daemon whose number belongs to a living process now keeps nobody waiting."""
    store = home / "store"
    store.mkdir(mode=0o711)
    note = {"pid": os.getpid(), "host": os.uname().nodename, "since": "2026-01-01T00:00:00+00:00", "born": 1}
    (store / "lock").write_text(json.dumps(note))
    daemon = launch.ready(_config(home), IDLE)
    assert not daemon.said("store.locked")
    assert json.loads((store / "lock").read_text())["pid"] == daemon.pid


@pytest.mark.parametrize("waits", [False, True], ids=["started afterwards", "waiting already"])
def test_a_killed_daemons_store_is_taken_over_whole(launch: Launcher, home: Path, *, waits: bool) -> None:
    """After kill -9 under load the next daemon has every committed row, and nothing of the old server is left."""
    first = launch.ready(_config(home), _WRITES, folder="first")
    second = launch.prepare(_config(home), _WRITES, folder="second")
    if waits:
        second.start().wait_for("store.locked")
    first.wait_until(lambda: len(first.said("committed")) > 200, "two hundred rows")
    old = set(processes_of(home / "store" / "data"))
    first.signal(signal.SIGKILL)
    first.wait()
    if not waits:
        second.start()
    found = set(second.wait_for("found")["numbers"].split())
    committed = {entry["number"] for entry in first.said("committed")}
    assert committed <= found
    assert not old & set(processes_of(home / "store" / "data"))
    assert second.stop() == 0
    assert processes_of(home / "store" / "data") == ()
