"""From the moment at which the server accepts until a worker's query succeeds."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.process import Process, read_moment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from random import Random

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

# Away for so long, the target, how many outages, and how many daemons live through each at the same time. They
# notice a short outage's end nearly together and would queue for the processors, so few of them share one.
_PLAN = ((1.0, 0.3, 15, 2), (12.0, 1.0, 4, 4), (60.0, 1.0, 1, 8))
_PROBE_INTERVAL_S = 1.0


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Measure each length of outage, with fresh daemons for each outage."""
    rng = bench.random("recovery")
    with bench.server() as server:
        for away_s, target_s, outages, daemons in _PLAN:
            if bench.is_quick and away_s > 20:
                continue
            waited: list[float] = []
            restarted: list[float] = []
            for _ in range(bench.count(outages, 2)):
                recoveries = _outage(bench, server, away_s, rng, daemons)
                waited += [recovery[0] for recovery in recoveries]
                restarted += [recovery[1] for recovery in recoveries]
            yield _figure(away_s, target_s, waited, restarted)


def _figure(away_s: float, target_s: float, waited: Sequence[float], restarted: Sequence[float]) -> Figure:
    return Figure(
        what=f"server back after {away_s:g} s until a worker's query succeeds",
        value=statistics.median(waited),
        unit="s",
        floor=0.0,
        floor_is="a bare connect every 5 ms: its first success is the zero",
        target=target_s,
        samples=len(waited),
        more={"waiting in ctx.db": spread(waited, 3), "ended by its lost statement": spread(restarted, 3)},
    )


def _outage(
    bench: BenchmarkRun, server: Postgres, away_s: float, rng: Random, daemons: int
) -> list[tuple[float, float]]:
    """Let several daemons live through one outage, and return for each how long its two workers took."""
    with contextlib.ExitStack() as stack:
        folders = []
        for _ in range(daemons):
            folder = bench.folder("recovery")
            folders.append(folder)
            settings = {"folder": str(folder)}
            workers = worker("waits", "query", settings=settings) + worker(
                "flies", "query_in_flight", settings=settings
            )
            stack.enter_context(Daemon(folder, bench.installation, server.dsn(), workers)).wait_notified()
        # Every daemon stands at a moment of its own between two heartbeats.
        time.sleep(1.0 + rng.random())
        server.stop()
        stopped_s = time.monotonic()
        accepted = bench.folder("accepted")
        stack.enter_context(Process(bench.folder("accepting"), *bench.bare("accepting", server.dsn(), str(accepted))))
        # The end of the outage falls anywhere between two looks.
        varied_s = _PROBE_INTERVAL_S * (rng.random() - 0.5) * min(1.0, away_s / 2)
        time.sleep(max(0.0, stopped_s + away_s + varied_s - time.monotonic()))
        began_s = time.monotonic()
        server.start(wait=False)
        accepted_s = read_moment(accepted, "the server accepting")
        return [
            (_first_after(folder / "waits", began_s) - accepted_s, _first_after(folder / "flies", began_s) - accepted_s)
            for folder in folders
        ]


def _first_after(record: Path, moment_s: float) -> float:
    """Return the first success that a worker wrote down after a moment."""

    def later() -> list[float]:
        # The last line may be under way.
        return [at_s for at_s in map(float, record.read_text().split("\n")[:-1]) if at_s > moment_s]

    wait_until(lambda: bool(later()), "a worker's query after the outage")
    return later()[0]
