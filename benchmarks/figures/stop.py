"""From SIGTERM to the end of the process, nothing being under way."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import BenchmarkRun

_TARGET_S = 0.05
_SETTLE_S = 3.0


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Start pairs of daemon and bare loop, let them settle, and end them one after the other."""
    workers = "".join(worker(f"idle{n}", "idle") for n in range(10))
    ours: list[float] = []
    bare: list[float] = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(bench.server())
        pairs = [
            (
                Daemon(bench.folder("stop"), bench.installation, server.dsn(), workers),
                Process(bench.folder("loop"), *bench.bare("loop")),
            )
            for _ in range(bench.count(20, 5))
        ]
        for pair in pairs:
            for process in pair:
                stack.enter_context(process)
                process.wait_notified()
        time.sleep(_SETTLE_S)
        for daemon, loop in pairs:
            ours.append(daemon.stop())
            bare.append(loop.stop())
    yield Figure(
        what="SIGTERM to exit, 10 idle workers",
        value=statistics.median(ours),
        unit="s",
        floor=statistics.median(bare),
        floor_is="asyncio on uvloop with a handler for SIGTERM",
        target=_TARGET_S,
        samples=len(ours),
        more={"ours_s": spread(ours), "bare_s": spread(bare)},
    )
