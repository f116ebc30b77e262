"""An embedded store that cannot be used ends the start with the status of its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.daemon import running

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
