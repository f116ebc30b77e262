"""What the journal says of the server is what the server says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.daemon import running

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
    [database]
    dsn = "ephemeral:"

    [workers.asker]
    run = "workers:ask"
"""
WORKERS = """
    async def ask(ctx):
        ctx.log.info("asked", version=await ctx.db.fetchval("show server_version"))
        await ctx.sleep(3600)
"""


def test_the_server_is_named_by_its_own_version(tmp_path: Path) -> None:
    """PostgreSQL 18.4 is called 18.4, not 18.0."""
    with running(tmp_path, CONFIG, WORKERS) as daemon:
        version = daemon.wait_for("asked")["version"]
        assert daemon.said("database.connected")[0]["server_version"] == version
        assert daemon.stop() == 0
