"""What a daemon with nothing to do costs: processor, memory, statements."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure
from benchmarks.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

_CPU_S, _RSS_MIB, _STATEMENTS_PER_S = 0.1, 45.0, 0.2
_SETTLE_S = 3.0
# What log_statement = all writes for the simple and for the extended protocol; %a in the prefix is the application.
_STATEMENT = re.compile(rb"/pgsupervisor app LOG: +(?:statement|execute [^:]*): ")


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Watch a daemon and a bare script with one connection through the same seconds."""
    lasts_s = bench.count(30, 10)
    workers = "".join(worker(f"idle{n}", "idle") for n in range(10))
    with bench.server() as server:
        server.set_config("log_statement", "all")
        with (
            Daemon(bench.folder("idle"), bench.installation, server.dsn(), workers) as daemon,
            Process(bench.folder("bare"), *bench.bare("connected", server.dsn())) as bare,
        ):
            daemon.wait_notified()
            bare.wait_notified()
            time.sleep(_SETTLE_S)
            before = daemon.cpu_s(), bare.cpu_s(), _statements(server)
            time.sleep(lasts_s)
            after = daemon.cpu_s(), bare.cpu_s(), _statements(server)
            memory, bare_memory = daemon.memory_mib(), bare.memory_mib()
            sessions = server.sessions("application_name = 'pgsupervisor app'")
    cpu_s, bare_cpu_s, statements = (then - now for now, then in zip(before, after, strict=True))
    one_connection = "the bare script of `start`, with its one connection"
    # Per 30 s, however long was watched.
    scale = 30 / lasts_s
    yield Figure(
        what="idle for 30 s with 10 workers: processor time",
        value=cpu_s * scale,
        unit="s",
        floor=bare_cpu_s * scale,
        floor_is=one_connection,
        target=_CPU_S,
    )
    yield Figure(
        what="idle with 10 workers: resident memory",
        value=memory["rss"],
        unit="MiB",
        floor=bare_memory["rss"],
        floor_is=one_connection,
        target=_RSS_MIB,
        more={"ours": memory, "bare": bare_memory},
    )
    yield Figure(
        what="idle with 10 workers: statements",
        value=statements / lasts_s,
        unit="/s",
        floor=0.0,
        floor_is="a connection needs none",
        target=_STATEMENTS_PER_S,
        more={"statements": statements, "within_s": lasts_s, "connections": sessions},
    )


def _statements(server: Postgres) -> int:
    """Count the daemon's statements in the server's own log."""
    return len(_STATEMENT.findall(server.log.read_bytes()))
