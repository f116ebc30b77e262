"""From the end of a singleton's holder to the first commit of the next one: killed, and stopped as asked."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.process import Process, wait_until
from benchmarks.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

_KILLED_MEDIAN_S, _KILLED_WORST_S, _STOPPED_S = 1.0, 2.0, 0.15
COMMITS = "create table bench_commit (worker text, epoch bigint, at timestamptz default clock_timestamp())"
# A holder has surely been seen by everybody by then, and lives at another moment between two looks each time.
_SETTLE_S = 1.0


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """End the holder of the two again and again, and replace it."""
    with bench.server() as server:
        server.execute(COMMITS)
        folder = bench.folder("holders")
        folder.mkdir()
        table = worker("held", "hold", settings={"folder": str(folder)}, singleton=True)
        ours = _Pair(bench, folder / "held", lambda: _daemon(bench, server, table))
        bare = _Pair(bench, folder / "bare", lambda: _holder(bench, server, folder / "bare"))
        for end, name in ((_kill, "killed"), (_stop, "stopped")):
            samples, floors = ours.takeovers(end, bench.count(50, 5)), bare.takeovers(end, bench.count(20, 5))
            yield from _figures(name, samples, floors)


def _figures(name: str, samples: list[float], floors: list[float]) -> Iterator[Figure]:
    what = {"killed": "holder killed (-9)", "stopped": "holder stopped (SIGTERM)"}[name]
    wait = "a session that waits in pg_advisory_lock() behind one that ends the same way"
    median_target_s, worst_target_s = {"killed": (_KILLED_MEDIAN_S, _KILLED_WORST_S), "stopped": (_STOPPED_S, None)}[
        name
    ]
    yield Figure(
        what=f"{what} until the next one's first commit, median",
        value=statistics.median(samples),
        unit="s",
        floor=statistics.median(floors),
        floor_is=wait,
        target=median_target_s,
        samples=len(samples),
        more={"ours_s": spread(samples), "bare_s": spread(floors)},
    )
    yield Figure(
        what=f"{what} until the next one's first commit, worst",
        value=max(samples),
        unit="s",
        floor=max(floors),
        floor_is=wait,
        target=worst_target_s,
        samples=len(samples),
    )


class _Pair:
    """Two processes of which one holds; whichever is ended is replaced."""

    def __init__(self, bench: BenchmarkRun, path: Path, make: Callable[[], Process]) -> None:
        self._rng = bench.random(f"takeover {path.name}")
        self._path = path
        self._make = make

    def takeovers(self, end: Callable[[Process], None], count: int) -> list[float]:
        """Return how long each change of hands took, from just before the end."""
        took: list[float] = []
        record = Record(self._path)
        record.new()  # of an earlier round
        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(self._make())]
            processes[0].wait_notified()
            wait_until(lambda: bool(record.new()), "a first holder")
            for _ in range(count):
                processes.append(stack.enter_context(self._make()))
                processes[-1].wait_notified()
                time.sleep(_SETTLE_S + self._rng.random())
                epoch = record.new()[-1].epoch
                began_s = time.monotonic()
                end(processes.pop(0))
                took.append(_first_of_another(record, epoch) - began_s)
            processes.pop().end()
        return took


def _first_of_another(record: Record, epoch: int) -> float:
    """Return when the first commit was made under another epoch."""
    moments: list[float] = []

    def has_come() -> bool:
        moments.extend(commit.at_s for commit in record.new() if commit.epoch != epoch)
        return bool(moments)

    wait_until(has_come, "another holder")
    return moments[0]


def _daemon(bench: BenchmarkRun, server: Postgres, workers: str) -> Process:
    return Daemon(bench.folder("takeover"), bench.installation, server.dsn(), workers)


def _holder(bench: BenchmarkRun, server: Postgres, record: Path) -> Process:
    return Process(bench.folder("holder"), *bench.bare("holder", server.dsn(), str(record)))


def _kill(process: Process) -> None:
    process.end()


def _stop(process: Process) -> None:
    process.stop()
    process.end()
