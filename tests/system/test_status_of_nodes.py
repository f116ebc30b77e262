"""`status` on one of several nodes: who lives, who holds what, and who lags."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from support.launching import config, launching, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.daemon import Daemon
    from support.postgres import Postgres

WORKERS = """
    async def work(ctx):
        while not ctx.stopping:
            await ctx.sleep(3600)

    async def apply(ctx, events):
        await ctx.sleep(3600)
"""
TABLES = """
[workers.main]
run = "workers:work"
singleton = true

[workers.view]
kind = "projection"
run = "workers:apply"
streams = ["orders-*"]
"""
LIMIT_S = 30.0


def seen(daemon: Daemon, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The status once this is so."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_so(answer := status(daemon)):
        assert time.monotonic() < deadline_s, answer
        time.sleep(0.05)
    return answer


def leases(answer: dict[str, Any]) -> list[str]:
    """Every lease that some node holds."""
    return sorted(lease["name"] for node in answer["nodes"] for lease in node["leases"])


def test_each_node_shows_all_and_marks_itself(postgres: Postgres, tmp_path: Path) -> None:
    """Both show the same nodes and leases; the one in standby names the holder; an outage shows what was known last."""
    text = config(postgres.dsn(), workers=TABLES)
    with launching(tmp_path) as launch:
        first = launch.ready(text, WORKERS, folder="first")
        seen(first, lambda answer: leases(answer) == ["main", "view"])
        second = launch.ready(text, WORKERS, folder="second")

        def is_shared(answer: dict[str, Any]) -> bool:
            return [len(node["leases"]) for node in answer["nodes"]] == [1, 1] and leases(answer) == ["main", "view"]

        seen(second, is_shared)
        postgres.execute(
            "select supervisor.append(s, 'placed') from unnest(array['orders-1', 'orders-2', 'users-1']) s"
        )
        for daemon in (first, second):
            answer = seen(daemon, is_shared)
            assert [node["pid"] for node in answer["nodes"] if node["this"]] == [daemon.pid]
            assert answer["cluster"]["problem"] is None
            assert answer["projections"][0]["lag_events"] == 2
        waits, holds = ("main", second), first
        if not any(lease["name"] == "main" for node in answer["nodes"] if not node["this"] for lease in node["leases"]):
            waits, holds = ("main", first), second
        lines = waits[1].run_command("status").stdout.splitlines()
        row = next(line for line in lines if line.startswith("main"))
        assert "standby" in row
        assert f"pid {holds.pid}, since" in row
        postgres.stop("immediate")
        answer = seen(first, lambda answer: answer["database"]["state"] == "down")
        assert answer["cluster"]["problem"] == "the database is unreachable"
        assert len(answer["nodes"]) == 2
        postgres.start()
        seen(first, lambda answer: answer["cluster"]["problem"] is None and is_shared(answer))


def test_a_daemon_without_leases_says_nothing_of_nodes(database: str, tmp_path: Path) -> None:
    """Where no worker needs a lease the status has no nodes, and asks the database nothing."""
    with launching(tmp_path) as launch:
        daemon = launch.ready(config(database))
        assert not {"nodes", "projections", "cluster"} & status(daemon).keys()
        assert "NODE" not in daemon.run_command("status").stdout
