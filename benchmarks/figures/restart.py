"""PostgreSQL restarted under three nodes: until every lease is held again and its worker commits."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Literal

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.figures.takeover import COMMITS
from benchmarks.process import wait_until
from benchmarks.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

_TARGET_S = 1.5
_NODES, _LEASES = 3, 12
_PROVEN_S = 12.0


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Restart the server under nodes that share leases, in good order and not."""
    rng = bench.random("restart")
    with bench.server() as server, contextlib.ExitStack() as stack:
        server.execute(COMMITS)
        folder = bench.folder("restart")
        folder.mkdir()
        names = [f"held{n}" for n in range(_LEASES)]
        tables = "".join(worker(name, "hold", settings={"folder": str(folder)}, singleton=True) for name in names)
        for _ in range(_NODES):
            daemon = Daemon(bench.folder("node"), bench.installation, server.dsn(), tables)
            stack.enter_context(daemon).wait_notified()
        records = [Record(folder / name) for name in names]
        wait_until(lambda: all((folder / name).exists() for name in names), "a commit under every lease")
        modes: tuple[Literal["fast", "immediate"], ...] = ("fast", "immediate")
        for mode in modes:
            took = []
            for _ in range(bench.count(10, 2)):
                # A connection that is lost sooner has not proven itself: the server flaps, and the delays stay grown.
                # The nodes stand at any moment between two looks.
                time.sleep(_PROVEN_S + rng.random())
                took.append(_restart(server, mode, records))
            yield Figure(
                what=f"server restarted ({mode}) under {_NODES} nodes until all {_LEASES} leases commit",
                value=statistics.median(took),
                unit="s",
                floor=0.0,
                floor_is="the server says that it accepts, looked at every 5 ms: that is the zero",
                target=_TARGET_S,
                samples=len(took),
                more={"ours_s": spread(took), "each_s": [round(each, 2) for each in took]},
            )


def _restart(server: Postgres, mode: Literal["fast", "immediate"], records: list[Record]) -> float:
    """Return how long after the server accepted the last of the leases was committed under again."""
    server.stop(mode)
    stopped_s = time.monotonic()
    server.start()
    accepted_s = time.monotonic()
    firsts: dict[Record, float] = {}

    def have_committed() -> bool:
        for record in records:
            moments = [commit.at_s for commit in record.new() if commit.at_s > stopped_s]
            if moments:
                firsts.setdefault(record, moments[0])
        return len(firsts) == len(records)

    wait_until(have_committed, "commits under every lease")
    return max(firsts.values()) - accepted_s
