"""Measures the figures that are asked for, and prints them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import BenchmarkRun
from benchmarks.figure import HEADER
from benchmarks.figures import (
    crowd,
    hangup,
    idle,
    outage,
    projection,
    recovery,
    reload,
    restart,
    shares,
    start,
    stop,
    takeover,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.figure import Figure

FIGURES: dict[str, Callable[[BenchmarkRun], Iterator[Figure]]] = {
    "start": start.measure,
    "stop": stop.measure,
    "idle": idle.measure,
    "reload": reload.measure,
    "hangup": hangup.measure,
    "crowd": crowd.measure,
    "outage": outage.measure,
    "recovery": recovery.measure,
    "takeover": takeover.measure,
    "restart": restart.measure,
    "throughput": projection.throughput,
    "latency": projection.latency,
    "shares": shares.measure,
}


def main() -> int:
    """Run, and return 1 when a target was missed."""
    options = _options()
    # The measured processes are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missed = 0
    with BenchmarkRun.set_up(seed=options.seed, is_quick=options.quick) as bench, options.json.open("w") as lines:
        print(f"{_machine()}; seed {options.seed}{', quick' if options.quick else ''}\n\n{HEADER}", flush=True)
        for name in options.figures or FIGURES:
            for figure in FIGURES[name](bench):
                print(figure.as_text(), flush=True)
                print(figure.as_json(name), file=lines, flush=True)
                missed += figure.is_met is False
        print(f"\n{_machine()}; {missed} missed; as JSON lines in {options.json}")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: to see that it works, not how well")
    parser.add_argument("--seed", type=int, default=1, help="of the random phases (default: 1)")
    parser.add_argument("--json", type=Path, default=Path(".cache/bench.jsonl"), help="where the JSON lines go")
    options = parser.parse_args()
    if unknown := [name for name in options.figures if name not in FIGURES]:
        parser.error(f"there is no figure {unknown[0]}; there are {', '.join(FIGURES)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    return options


def _machine() -> str:
    load = os.getloadavg()[0]
    python = sys.version.partition(" ")[0]
    return f"{time.strftime('%H:%M:%S')}: {os.cpu_count()} processors, load {load:.1f}, Python {python}"


if __name__ == "__main__":
    sys.exit(main())
