"""A projection's throughput, and how soon after its append an event is applied; each beside a loop made by hand."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure, spread
from benchmarks.process import LIMIT_S, Process, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

# Ours may take a quarter longer: at least 80 % of the events a second.
_SLOWER, _P50_S, _P99_S = 1 / 0.8, 0.010, 0.050
_RATE = 50
_TABLES = """
create table bench_batch (reader text, first bigint, last bigint, at timestamptz default clock_timestamp());
create table bench_cursor (position bigint);
insert into bench_cursor values (0)
"""
# The server's own clock, when each transaction committed.
_LATENCIES = """
select extract(epoch from pg_xact_commit_timestamp(b.xmin) - pg_xact_commit_timestamp(e.xmin))
from bench_batch b join supervisor.event e on e.position between b.first and b.last
where b.reader = '{reader}' and e.position > {after} order by 1
"""
_BY_HAND = "LISTEN, and a cursor moved in the transaction that reads and writes, over bare asyncpg"


def throughput(bench: BenchmarkRun) -> Iterator[Figure]:
    """Let both go through the same events in turns."""
    count, rounds = bench.count(200_000, 20_000), bench.count(15, 2)
    with bench.server() as server:
        _prepare(bench, server)
        server.execute(
            f"select count(supervisor.append('bench-' || n % 1000, 'tick')) from generate_series(1, {count}) n",
            timeout_s=300,
        )
        head = int(server.execute("select max(position) from supervisor.event"))
        server.execute("vacuum analyze supervisor.event")
        ours, bare = [], []
        for _ in range(rounds):
            ours.append(_per_event_s(server, lambda: _daemon(bench, server), "view", head))
            server.execute("select supervisor.reset_projection('view')")
            bare.append(_per_event_s(server, lambda: _follower(bench, server), "bare", head))
            server.execute("update bench_cursor set position = 0")
    yield Figure(
        what="through one projection, batch 500, one row a batch: an event",
        value=statistics.median(ours) * 1e6,
        unit="us",
        floor=statistics.median(bare) * 1e6,
        floor_is=_BY_HAND,
        target=statistics.median(bare) * 1e6 * _SLOWER,
        samples=rounds,
        more={
            "events_per_s": round(1 / statistics.median(ours)),
            "bare_events_per_s": round(1 / statistics.median(bare)),
            "ratio": round(statistics.median(bare) / statistics.median(ours), 3),
            "ratio_of_rounds": spread([theirs / own for own, theirs in zip(ours, bare, strict=True)], 3),
            "ours_us": spread([each * 1e6 for each in ours], 2),
            "bare_us": spread([each * 1e6 for each in bare], 2),
        },
    )


def latency(bench: BenchmarkRun) -> Iterator[Figure]:
    """Append fifty events a second, first for us, then for the loop made by hand."""
    lasts_s = bench.count(60, 8)
    with bench.server() as server:
        server.set_config("track_commit_timestamp", "on")
        server.restart()
        _prepare(bench, server)
        ours = _latencies(bench, server, lambda: _daemon(bench, server), "view", lasts_s)
        server.execute("update bench_cursor set position = (select max(position) from supervisor.event)")
        bare = _latencies(bench, server, lambda: _follower(bench, server), "bare", lasts_s)
    for name, share, target_s in (("p50", 0.50, _P50_S), ("p99", 0.99, _P99_S)):
        yield Figure(
            what=f"event appended until applied, at {_RATE} a second, {name}",
            value=_quantile(ours, share),
            unit="s",
            floor=_quantile(bare, share),
            floor_is=_BY_HAND,
            target=target_s,
            samples=len(ours),
            more={"ours_s": spread(ours), "bare_s": spread(bare)},
        )


def _prepare(bench: BenchmarkRun, server: Postgres) -> None:
    """Have the schema made and the projection laid out, by a daemon that ends again."""
    server.execute(_TABLES)
    with _daemon(bench, server) as daemon:
        daemon.wait_notified()
        wait_until(lambda: server.execute("select count(*) from supervisor.checkpoint") == "1", "a checkpoint")
        daemon.stop()


def _per_event_s(server: Postgres, make: Callable[[], Process], reader: str, head: int) -> float:
    """Return how long each event took from the first batch to the last, by the server's clock."""
    server.execute("truncate bench_batch")
    with make() as process:
        process.wait_notified()

        def is_through() -> bool:
            time.sleep(0.2)  # what asks shares the processors
            return server.execute(f"select max(last) from bench_batch where reader = '{reader}'") == str(head)

        wait_until(is_through, "the last event", 10 * LIMIT_S)
    span_s, events = server.execute(
        "select extract(epoch from max(at) - min(at)), (select count(*) from supervisor.event e"
        f" where e.position > (select min(last) from bench_batch where reader = '{reader}'))"
        f" from bench_batch where reader = '{reader}'"
    ).split("|")
    return float(span_s) / int(events)


def _latencies(
    bench: BenchmarkRun, server: Postgres, make: Callable[[], Process], reader: str, lasts_s: float
) -> list[float]:
    after = int(server.execute("select coalesce(max(position), 0) from supervisor.event"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(make()).wait_notified()
        time.sleep(1.0)
        appender = Process(bench.folder("appender"), *bench.bare("appender", server.dsn(), str(_RATE), str(lasts_s)))
        assert stack.enter_context(appender).wait(lasts_s + LIMIT_S) == 0, appender.said()
        head = server.execute("select max(position) from supervisor.event")
        applied = f"select max(last) from bench_batch where reader = '{reader}'"
        wait_until(lambda: server.execute(applied) == head, "the last event")
    return [float(line) for line in server.execute(_LATENCIES.format(reader=reader, after=after)).splitlines()]


def _quantile(samples: list[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, round(share * len(samples)))]


def _daemon(bench: BenchmarkRun, server: Postgres) -> Process:
    table = worker("view", "project", kind="projection", batch=500)
    return Daemon(bench.folder("projection"), bench.installation, server.dsn(), table)


def _follower(bench: BenchmarkRun, server: Postgres) -> Process:
    return Process(bench.folder("follower"), *bench.bare("follower", server.dsn()))
