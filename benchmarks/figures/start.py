"""From exec to READY=1, the database being up."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.daemon import BLOCKED_HUP, Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import BenchmarkRun

_TARGET = 1.4


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Start daemon, daemon as in the unit, and bare script in turns."""
    with bench.server() as server:
        dsn = server.dsn()
        workers = "".join(worker(f"idle{n}", "idle") for n in range(10))

        def daemon(*prefix: str) -> Process:
            return Daemon(bench.folder("start"), bench.installation, dsn, workers, prefix)

        makers: list[Callable[[], Process]] = [
            lambda: Process(bench.folder("bare"), *bench.bare("connected", dsn)),
            daemon,
            lambda: daemon(*BLOCKED_HUP),
        ]
        times: list[list[float]] = [[] for _ in makers]
        for number in range(bench.count(40, 8) + 1):
            for kind, make in enumerate(makers):
                took_s = _took(make)
                if number:  # the first of each warms the caches
                    times[kind].append(took_s)
    bare, ours, unit = times
    floor_s = statistics.median(bare)
    yield Figure(
        what="exec to READY=1, against a bare script that connects",
        value=statistics.median(ours) / floor_s,
        unit="x",
        floor=1.0,
        floor_is="imports asyncio, uvloop, asyncpg, structlog; connects; datagram",
        target=_TARGET,
        samples=len(ours),
        more={"ours_s": spread(ours), "bare_s": spread(bare), "through_env_s": spread(unit)},
    )


def _took(make: Callable[[], Process]) -> float:
    with make() as process:
        took_s = process.wait_notified() - process.spawned_s
        process.stop()
    return took_s
