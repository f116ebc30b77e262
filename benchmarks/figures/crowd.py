"""Ten thousand idle workers: memory, start, and the way through an outage."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.process import Process, read_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

_COUNT = 10_000
_RSS_MIB, _START_S, _OUTAGE_S = 300.0, 3.0, 2.0
_AWAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Floor:
    """The same without supervision.

    Attributes:
        start_s: From exec until as many tasks sleep.
        rss_mib: Their memory.
        queries_s: How long as many queries take through a bare pool.
    """

    start_s: float
    rss_mib: float
    queries_s: float


@dataclass(frozen=True, slots=True)
class Life:
    """What one daemon with its crowd came to; times in seconds.

    Attributes:
        ready_s: From exec to READY=1.
        begun_s: From exec until the last worker has begun.
        rss_mib: Resident memory, idle.
        later_mib: The same after the outage.
        parked_s: From the server's death until the journal says that the workers are parked.
        resumed_s: From "the server accepts" until the journal says that the workers go on.
        first_s: Until the first worker's waiting call is done.
        done_s: Until the last one is.
        stop_s: From SIGTERM to the end.
    """

    ready_s: float
    begun_s: float
    rss_mib: float
    later_mib: float
    parked_s: float
    resumed_s: float
    first_s: float
    done_s: float
    stop_s: float

    @property
    def start_s(self) -> float:
        """From exec until READY=1 has been said and everybody has begun."""
        return max(self.ready_s, self.begun_s)


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Measure both shapes: many replicas of one worker, and many workers."""
    rng = bench.random("crowd")
    with bench.server() as server:
        floor = _floor(bench, server)
        for shape in ("replicas", "tables"):
            lives = [_live(bench, server, rng, is_one=shape == "replicas") for _ in range(bench.count(5, 1))]
            yield from _figures(f"{_COUNT} {shape}", lives, floor)


def _floor(bench: BenchmarkRun, server: Postgres) -> Floor:
    with Process(bench.folder("sleepers"), *bench.bare("sleepers", str(_COUNT))) as sleepers:
        start_s = sleepers.wait_notified() - sleepers.spawned_s
        rss_mib = sleepers.memory_mib()["rss"]
    folder = bench.folder("pool")
    with Process(folder, *bench.bare("pool", server.dsn(), str(_COUNT), str(folder / "took"))):
        queries_s = read_moment(folder / "took", "the bare pool's queries")
    return Floor(start_s, rss_mib, queries_s)


def _live(bench: BenchmarkRun, server: Postgres, rng: Random, *, is_one: bool) -> Life:
    folder = bench.folder("crowd")
    settings = {"count": _COUNT, "folder": str(folder)}
    if is_one:
        workers = worker("many", "one_of_many", replicas=_COUNT, settings=settings)
    else:
        workers = "".join(worker(f"many{n}", "one_of_many", settings=settings) for n in range(_COUNT))
    with Daemon(folder, bench.installation, server.dsn(), workers) as daemon:
        ready_s = daemon.wait_notified() - daemon.spawned_s
        begun_s = read_moment(folder / "begun", "all workers begun") - daemon.spawned_s
        time.sleep(2.0)
        rss_mib = daemon.memory_mib()["rss"]
        parked_s = _park(server, daemon)
        resumed_s, first_s, done_s = _resume(bench, server, daemon, away_s=_AWAY_S + rng.random())
        later_mib = daemon.memory_mib()["rss"]
        stop_s = daemon.stop()
    return Life(ready_s, begun_s, rss_mib, later_mib, parked_s, resumed_s, first_s, done_s, stop_s)


def _park(server: Postgres, daemon: Daemon) -> float:
    """Kill the server, let every worker call the database, and return when the workers were parked."""
    seen = daemon.lines()
    killed_s = time.monotonic()
    server.kill()
    parked_s = daemon.wait_said("workers.parked", after=seen) - killed_s
    (daemon.folder / "go").touch()
    read_moment(daemon.folder / "waiting", "all workers waiting")
    return parked_s


def _resume(bench: BenchmarkRun, server: Postgres, daemon: Daemon, *, away_s: float) -> tuple[float, ...]:
    """Bring the server back, and return when that was told, and the first and last waiting call done."""
    seen = daemon.lines()
    accepted = daemon.folder / "accepted"
    with Process(bench.folder("accepting"), *bench.bare("accepting", server.dsn(), str(accepted))):
        time.sleep(away_s)
        server.start(wait=False)
        accepted_s = read_moment(accepted, "the server accepting")
        resumed_s = daemon.wait_said("workers.resumed", after=seen)
        done_s = read_moment(daemon.folder / "done", "all waiting calls done")
    first_s = read_moment(daemon.folder / "first", "a waiting call done")
    return tuple(moment_s - accepted_s for moment_s in (resumed_s, first_s, done_s))


def _figures(what: str, lives: Sequence[Life], floor: Floor) -> Iterator[Figure]:
    def median(read: Callable[[Life], float]) -> float:
        return statistics.median(map(read, lives))

    tasks = "a bare script with as many tasks asleep"
    yield Figure(
        what=f"{what}, idle: resident memory",
        value=median(lambda life: life.rss_mib),
        unit="MiB",
        floor=floor.rss_mib,
        floor_is=tasks,
        target=_RSS_MIB,
        samples=len(lives),
        more={"after an outage": median(lambda life: life.later_mib)},
    )
    yield Figure(
        what=f"{what}: exec until READY=1 and all have begun",
        value=median(lambda life: life.start_s),
        unit="s",
        floor=floor.start_s,
        floor_is=tasks,
        target=_START_S,
        samples=len(lives),
        more={"READY=1": median(lambda life: life.ready_s), "SIGTERM to exit": median(lambda life: life.stop_s)},
    )
    yield Figure(
        what=f"{what}: server killed to `workers.parked`",
        value=median(lambda life: life.parked_s),
        unit="s",
        target=_OUTAGE_S,
        samples=len(lives),
    )
    yield Figure(
        what=f"{what}: server accepts to all waiting calls done",
        value=median(lambda life: life.done_s),
        unit="s",
        floor=floor.queries_s,
        floor_is="as many queries through asyncpg's pool of 10, the server being there",
        target=_OUTAGE_S,
        samples=len(lives),
        more={
            "spread": spread([life.done_s for life in lives], 3),
            "workers.resumed": median(lambda life: life.resumed_s),
            "first call done": median(lambda life: life.first_s),
        },
    )
