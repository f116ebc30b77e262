"""An embedded store that cannot be used ends the start with the status of its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.clock import FakeClock, settle
from support.daemon import running
from support.entries import Entries
from support.inner_daemon import inner_daemon

from supervisor.database.embedded.locks import StateLock
from supervisor.exit_status import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
    [database]
    dsn = "embedded:occupied"

    [workers.idle]
    run = "workers:idle"
"""
WORKERS = """
    async def idle(ctx):
        await ctx.sleep(3600)
"""


async def test_a_store_that_stays_locked_ends_with_75(tmp_path: Path) -> None:
    """Whoever holds it is given twice the stop_timeout to drain, two minutes at least; then systemd tries again."""
    clock = FakeClock()
    text = (
        '[supervisor]\nstop_timeout = "90s"\n[database]\ndsn = "embedded:store"\n[workers.idle]\nrun = "asyncio:wait"\n'
    )
    holder = StateLock(tmp_path / "store")
    assert holder.try_acquire() is None
    with Entries() as entries, inner_daemon(tmp_path, text, clock=clock) as daemon:
        start = daemon.tasks.start(daemon.start(), name="start")
        await entries.wait_for("store.locked")
        await clock.jump(179.0)
        assert not daemon.state.is_stopping
        await clock.jump(2.0)
        assert start.done()
        assert daemon.state.exit_reason is not None
        assert daemon.state.exit_reason.status is ExitStatus.TEMPFAIL
        assert "gave up after 180 s" in daemon.state.exit_reason.text
    holder.release()
    await settle()


def test_a_folder_that_holds_something_else_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    """The daemon touches nothing, says what is there and exits with 78, so that systemd does not try again."""
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "letter.txt").write_text("mine")
    with running(tmp_path, CONFIG, WORKERS) as daemon:
        assert daemon.wait() == 78
    assert daemon.said("daemon.failed") == []
    (stopping,) = daemon.said("daemon.stopping")
    assert "letter.txt" in stopping["message"]
    assert [file.name for file in occupied.iterdir() if file.name != "lock"] == ["letter.txt"]
