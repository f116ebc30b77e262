"""What an outage of 30 s costs, with few and with many workers: journal lines, connection attempts, processor."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from support.proxy import Proxy

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure
from benchmarks.packet_counter import PacketCounter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

_AWAY_S = 30.0
_LINES, _ATTEMPTS, _CPU_S = 10, 40, 0.5
_PAUSE_S = 20.0
# A worker's queries before the outage come at random moments; so many seconds spread them out.
_SETTLE_S = 4.0
_AFTER_S = 5.0
# Those of the stop; and nobody reads the notify socket after READY, so that its queue is full sooner or later.
_NOT_COUNTED = {"daemon.stopping", "daemon.stopped", "worker.stopped", "notify.failed"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one daemon did in the outage.

    Attributes:
        lines: Journal lines from the server's end on, those after its return and of the folding too.
        dials: Connections that the kernel was asked for; None: nobody could count.
        spoken: Those that began to talk: full attempts, where something accepts.
        attempts: Full attempts as the status tells them.
        cpu_s: Processor time.
    """

    lines: int
    dials: int | None
    spoken: int | None
    attempts: int
    cpu_s: float


class Subject:
    """A daemon behind a port of its own, so that its connections can be told from the others'."""

    def __init__(self, daemon: Daemon, proxy: Proxy, workers: int, *, refuses: bool) -> None:
        self.daemon = daemon
        self.proxy = proxy
        self.workers = workers
        self.refuses = refuses
        self._lines = 0
        self._cpu_s = 0.0
        self._dials = self._spoken = 0

    def fall(self, packets: PacketCounter) -> None:
        """Begin: new connections are refused, or accepted and closed as by a proxy before a dead server."""
        self._lines, self._cpu_s = self.daemon.lines(), self.daemon.cpu_s()
        self._dials, self._spoken = packets.dials(self.proxy.port), packets.spoken(self.proxy.port)
        if self.refuses:
            self.proxy.refuse()
        else:
            self.proxy.accept_then_close()

    def look(self, packets: PacketCounter) -> Seen:
        """Return what has been seen so far; the lines come later."""
        # First what asking would disturb.
        cpu_s = self.daemon.cpu_s() - self._cpu_s
        dials = packets.dials(self.proxy.port) - self._dials if packets.is_possible else None
        spoken = packets.spoken(self.proxy.port) - self._spoken if packets.is_possible else None
        return Seen(0, dials, spoken, int(self.daemon.status()["database"]["attempts"]), cpu_s)

    def count_lines(self) -> int:
        """Stop the daemon, so that it tells what it folded, and count the lines about anything but that stop."""
        self.daemon.stop()
        entries = list(self.daemon.entries())[self._lines :]
        return sum(entry["event"] not in _NOT_COUNTED for entry in entries)


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Let daemons of both sizes, refused and closed upon, live through the same outage."""
    repetitions = bench.count(5, 1)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(bench.server())
        packets = stack.enter_context(PacketCounter())
        subjects = [
            _subject(bench, stack, server, workers, refuses=refuses)
            for _ in range(repetitions)
            for workers in (10, 1000)
            for refuses in (True, False)
        ]
        time.sleep(_SETTLE_S)
        for subject in subjects:
            subject.fall(packets)
        server.stop()
        time.sleep(_AWAY_S)
        seen = [(subject, subject.look(packets)) for subject in subjects]
        server.start()
        for subject in subjects:
            subject.proxy.forward()
        for subject in subjects:
            subject.daemon.wait_said("workers.resumed")
        time.sleep(_AFTER_S)
        seen = [(subject, replace(sight, lines=subject.count_lines())) for subject, sight in seen]
    for workers in (10, 1000):
        yield from _figures(workers, [(s, sight) for s, sight in seen if s.workers == workers])


def _subject(
    bench: BenchmarkRun, stack: contextlib.ExitStack, server: Postgres, workers: int, *, refuses: bool
) -> Subject:
    proxy = stack.enter_context(Proxy(server.port))
    table = worker("many", "query_rarely", replicas=workers, settings={"pause_s": _PAUSE_S})
    daemon = Daemon(bench.folder("outage"), bench.installation, server.dsn(port=proxy.port), table)
    stack.enter_context(daemon).wait_notified()
    return Subject(daemon, proxy, workers, refuses=refuses)


def _figures(workers: int, seen: Sequence[tuple[Subject, Seen]]) -> Iterator[Figure]:
    what = f"30 s without a server, {workers} workers"
    sights = [sight for _, sight in seen]
    refused = [sight for subject, sight in seen if subject.refuses]
    closed = [sight for subject, sight in seen if not subject.refuses]
    yield Figure(
        what=f"{what}: journal lines, the most",
        value=max(sight.lines for sight in sights),
        unit="",
        floor=2,
        floor_is="one for the loss, one for the return",
        target=_LINES,
        samples=len(sights),
        more={"refused": [s.lines for s in refused], "closed": [s.lines for s in closed]},
    )
    yield Figure(
        what=f"{what}: connection attempts, the most",
        value=max(sight.attempts for sight in sights),
        unit="",
        floor=1,
        floor_is="whoever knew when to try",
        target=_ATTEMPTS,
        samples=len(sights),
        more={
            "refused": [s.attempts for s in refused],
            "closed": [s.attempts for s in closed],
            "closed, seen on the wire": [s.spoken for s in closed],
            "with the looks in between, refused": [s.dials for s in refused],
            "closed ": [s.dials for s in closed],
        },
    )
    cpu_s = [sight.cpu_s for sight in sights]
    yield Figure(
        what=f"{what}: processor time",
        value=statistics.median(cpu_s),
        unit="s",
        floor=0.0,
        floor_is="a process that waits",
        target=_CPU_S if workers == 1000 else None,
        samples=len(cpu_s),
        more={"refused": [round(s.cpu_s, 3) for s in refused], "closed": [round(s.cpu_s, 3) for s in closed]},
    )
