"""PostgreSQL restarted under three nodes: until every lease is held again and its worker commits."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Literal

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.figures.takeover import COMMITS
from benchmarks.process import Process, read_moment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.postgres import Postgres

    from benchmarks.bench import Bench

_TARGET_S = 1.5
_NODES, _LEASES = 3, 12


def measure(bench: Bench) -> Iterator[Figure]:
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
        records = [folder / name for name in names]
        wait_until(lambda: all(map(_last, records)), "a commit under every lease")
        for mode in ("fast", "immediate"):
            took = []
            for _ in range(bench.count(10, 2)):
                # The nodes have settled, and stand at any moment between two looks.
                time.sleep(5.0 + rng.random())
                took.append(_restart(bench, server, mode, records))
            yield Figure(
                what=f"server restarted ({mode}) under {_NODES} nodes until all {_LEASES} leases commit",
                value=statistics.median(took),
                unit="s",
                floor=0.0,
                floor_is="a bare connect every 5 ms: its first success is the zero",
                target=_TARGET_S,
                samples=len(took),
                more={"ours_s": spread(took)},
            )


def _restart(bench: Bench, server: Postgres, mode: Literal["fast", "immediate"], records: list[Path]) -> float:
    """Return how long after the server accepted the last of the leases was committed under again."""
    server.stop(mode)
    stopped_s = time.monotonic()
    accepted = bench.folder("accepted")
    with Process(bench.folder("accepting"), *bench.bare("accepting", server.dsn(), str(accepted))):
        server.start(wait=False)
        accepted_s = read_moment(accepted, "the server accepting")
        wait_until(lambda: all(_last(record) > stopped_s for record in records), "commits under every lease")
    return max(_first_after(record, stopped_s) for record in records) - accepted_s


def _moments(record: Path) -> list[float]:
    # The last line may be under way.
    return [float(line.split()[0]) for line in record.read_text().split("\n")[:-1]]


def _last(record: Path) -> float:
    return _moments(record)[-1] if record.exists() and _moments(record) else 0.0


def _first_after(record: Path, moment_s: float) -> float:
    return next(at_s for at_s in _moments(record) if at_s > moment_s)
