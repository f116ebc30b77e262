"""A reload of an unchanged configuration, for information."""

from __future__ import annotations

import signal
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import BenchmarkRun


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Reload daemons with few and with many workers, again and again."""
    with bench.server() as server:
        for count in (10, 10_000):
            workers = "".join(worker(f"idle{n}", "idle") for n in range(count))
            with Daemon(bench.folder("reload"), bench.installation, server.dsn(), workers) as daemon:
                daemon.wait_notified()
                time.sleep(1.0)
                times = [_reload(daemon) for _ in range(bench.count(20, 3))]
            yield Figure(
                what=f"SIGHUP to READY=1, nothing changed, {count} workers",
                value=statistics.median(times),
                unit="s",
                samples=len(times),
                more={"ours_s": spread(times)},
            )


def _reload(daemon: Daemon) -> float:
    began_s = time.monotonic()
    daemon.signal(signal.SIGHUP)
    took_s = daemon.wait_notified() - began_s
    time.sleep(0.1)
    return took_s
