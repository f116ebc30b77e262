"""A thousand leases over four nodes: until they are shared out fairly, and what idling with them costs."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

from benchmarks.daemon import Daemon, worker
from benchmarks.figure import Figure
from benchmarks.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres

    from benchmarks.bench import BenchmarkRun

_BALANCED_S, _MANY_PER_S, _ALONE_PER_S = 5.0, 4.0, 0.2
_STATEMENT = re.compile(rb"/pgsupervisor app LOG: +(?:statement|execute [^:]*): ")
_SETTLE_S = 3.0
_HELD = """
select coalesce(string_agg(leases::text, ' ' order by leases), '') from (
    select (select count(*) from supervisor.lock_holders l where l.kind = 'lease' and l.pid = n.pid) as leases
    from supervisor.lock_holders n where n.kind = 'node'
) as per_node
"""
# The least that the same change costs the server: one session takes as many locks and renews as many rows.
_BARE = """
do $$ begin
    perform pg_advisory_xact_lock(7, n) from generate_series(1, {count}) n;
    update supervisor.lease set epoch = epoch + 1 where id in (select id from supervisor.lease limit {count});
end $$
"""


def measure(bench: BenchmarkRun) -> Iterator[Figure]:
    """Let four nodes come one after another, idle, and lose one."""
    count = bench.count(1000, 200)
    tables = "".join(worker(f"single{n}", "idle", singleton=True) for n in range(count))
    idle_s = bench.count(30, 10)
    with bench.server() as server, contextlib.ExitStack() as stack:
        server.set_config("log_statement", "all")

        def join() -> Daemon:
            node = Daemon(bench.folder("node"), bench.installation, server.dsn(), tables)
            stack.enter_context(node).wait_notified()
            return node

        nodes = [join()]
        _wait_balanced(server, 1, count)
        alone_per_s = _statements_per_s(server, idle_s)
        for _ in range(2):
            nodes.append(join())
            _wait_balanced(server, len(nodes), count)
        time.sleep(_SETTLE_S)
        nodes.append(join())
        joined_s = time.monotonic()
        after_join_s = _wait_balanced(server, 4, count) - joined_s
        many_per_s = _statements_per_s(server, idle_s) / 4
        cpu_s = sum(node.cpu_s() for node in nodes)
        time.sleep(idle_s)
        cpu = (sum(node.cpu_s() for node in nodes) - cpu_s) / 4 / idle_s
        memory = [node.memory_mib()["rss"] for node in nodes]
        died_s = time.monotonic()
        nodes.pop(1).end()
        after_death_s = _wait_balanced(server, 3, count) - died_s
        floor_s = _timed(server, count // 4)
    bare = "one session takes as many locks and renews as many rows, through psql"
    yield Figure(
        what=f"{count} leases: a fourth node joins (READY=1) until shared out",
        value=after_join_s, unit="s", floor=floor_s, floor_is=bare, target=_BALANCED_S,
    )  # fmt: skip
    yield Figure(
        what=f"{count} leases: one of four nodes is killed until shared out",
        value=after_death_s, unit="s", floor=floor_s, floor_is=bare, target=_BALANCED_S,
    )  # fmt: skip
    yield Figure(
        what=f"{count} leases over four idle nodes: statements of each",
        value=many_per_s, unit="/s", floor=0.0, floor_is="a connection needs none", target=_MANY_PER_S,
        more={"processors": cpu, "rss_mib": max(memory)},
    )  # fmt: skip
    yield Figure(
        what=f"{count} leases on a node that is alone and idle: statements",
        value=alone_per_s, unit="/s", floor=0.0, floor_is="a connection needs none", target=_ALONE_PER_S,
    )  # fmt: skip


def _wait_balanced(server: Postgres, nodes: int, leases: int) -> float:
    """Return when every lease was seen held and nobody had two more than another."""

    def is_balanced() -> bool:
        held = [int(number) for number in server.execute(_HELD).split()]
        return len(held) == nodes and sum(held) == leases and max(held) - min(held) <= 1

    return wait_until(is_balanced, f"{leases} leases shared out over {nodes} nodes")


def _statements_per_s(server: Postgres, lasts_s: float) -> float:
    time.sleep(_SETTLE_S)
    before = _statements(server)
    time.sleep(lasts_s)
    return (_statements(server) - before) / lasts_s


def _statements(server: Postgres) -> int:
    return len(_STATEMENT.findall(server.log.read_bytes()))


def _timed(server: Postgres, count: int) -> float:
    began_s = time.monotonic()
    server.execute(_BARE.format(count=count))
    return time.monotonic() - began_s
