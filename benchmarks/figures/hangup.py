"""A SIGHUP at any moment of the start: who dies of it?"""

from __future__ import annotations

import signal
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import BLOCKED_HUP, Daemon, worker
from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from benchmarks.bench import BenchmarkRun

_EARLIEST_S = 0.001
_EARLY_S = 0.04
_LIVES = "reloaded"


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Try the unit's ExecStart, then the same without `env`."""
    rng = bench.random("hangup")
    with bench.server() as server:
        dsn = server.dsn()
        start_s = statistics.median(_start_s(bench, dsn) for _ in range(3))
        moments = _moments(bench.count(200, 20), start_s, rng)
        bare_moments = _moments(bench.count(60, 10), start_s, rng)
        ended = [_try(bench, dsn, at_s, BLOCKED_HUP) for at_s in moments]
        bare_ended = [_try(bench, dsn, at_s, ()) for at_s in bare_moments]
    deaths = _deaths(moments, ended)
    latest_s = max((at_s for at_s, how in zip(bare_moments, bare_ended, strict=True) if how != _LIVES), default=0.0)
    yield Figure(
        what=f"deaths of a SIGHUP at any moment of the start, {len(moments)} tries",
        value=len(deaths),
        unit="",
        floor=sum(how != _LIVES for how in bare_ended),
        floor_is=f"the same without env --block-signal=HUP, {len(bare_moments)} tries",
        target=0,
        more={
            "start_s": round(start_s, 3),
            "deaths": deaths,
            "without env the latest at, ms": latest_s * 1000,
            "within_start": sum(at_s < start_s for at_s in moments),
        },
    )


def _moments(count: int, start_s: float, rng: Random) -> list[float]:
    """Return moments after exec: half of them while the interpreter starts, evenly on a logarithmic scale."""
    ratio = _EARLY_S / _EARLIEST_S
    early = [_EARLIEST_S * ratio ** rng.random() for _ in range(count // 2)]
    return sorted(early + [rng.uniform(_EARLIEST_S, start_s * 1.1) for _ in range(count - len(early))])


def _start_s(bench: BenchmarkRun, dsn: str) -> float:
    with _daemon(bench, dsn, BLOCKED_HUP) as daemon:
        return daemon.wait_notified() - daemon.spawned_s


def _daemon(bench: BenchmarkRun, dsn: str, prefix: tuple[str, ...]) -> Daemon:
    return Daemon(bench.folder("hup"), bench.installation, dsn, worker("idle", "idle"), prefix)


def _try(bench: BenchmarkRun, dsn: str, at_s: float, prefix: tuple[str, ...]) -> str:
    """Return what became of a daemon that got a SIGHUP at this moment: it must live, and do the reload."""
    with _daemon(bench, dsn, prefix) as daemon:
        _let_run(daemon, at_s)
        daemon.signal(signal.SIGHUP)
        deadline_s = time.monotonic() + 20.0
        while time.monotonic() < deadline_s:
            if (status := daemon.wait(0.01)) is not None:
                return f"ended with {status}"
            if '"event": "reload.applied"' in daemon.said():
                return _LIVES
    return "never reloaded"


def _let_run(daemon: Daemon, for_s: float) -> None:
    """Return when so much time has passed for a process whose exec has just happened.

    The first milliseconds are its own, those in which it had a processor: on a loaded machine it may not have
    executed one instruction after 4 ms of ours, and would be said to have died of a signal sent before its exec.
    """
    executed_s, ran_s = time.monotonic(), daemon.cpu_s()
    if for_s < _EARLY_S:
        while daemon.cpu_s() < ran_s + for_s and time.monotonic() < executed_s + 1.0:
            pass
    else:
        while time.monotonic() < executed_s + for_s:
            pass


def _deaths(moments: Sequence[float], ended: Sequence[str]) -> list[str]:
    return [f"{at_s * 1000:.1f} ms: {how}" for at_s, how in zip(moments, ended, strict=True) if how != _LIVES]
