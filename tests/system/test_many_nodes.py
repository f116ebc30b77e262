"""Several daemons on one database: what becomes of a lease whose holder is killed, frozen, cut off or robbed of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from support.launching import status
from support.nodes import Node, Nodes, several_nodes
from support.schema import connection
from torture.checker import check
from torture.history import Drop, History, Mark, Resumption
from torture.ledger import Rows, create_ledger, read_marks
from torture.overlap import GRACE_S, TRUST_S, longest_overlap_s
from torture.run import WORKERS

from supervisor.database.schema.version import migration_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from support.postgres import Postgres

# What the holder does outside of the database, and inside under the fence, at the same time.
BOTH = """
async def both(ctx):
    async with asyncio.TaskGroup() as group:
        group.create_task(lamp(ctx))
        group.create_task(busy(ctx))

async def busy(ctx):
    while True:
        await _work(ctx)
        await asyncio.sleep(0.05)
"""
WORKER = """
[workers.{name}]
run = "workers:both"
singleton = true
backoff = {{ initial = "100ms", jitter = "none" }}
max_restarts = 1000
"""
DATABASE = """
[database]
dsn = "{dsn}"
connect_timeout = "2s"
runtime = { initial = "100ms", max = "1s" }
"""

# From the last statement of its session to the next holder: the server's timeout, and a look.
PASSED_ON_S = 20.0
# The rest is a busy machine's; the benchmarks measure it.
TAKEN_OVER_S = 5.0


class Case:
    """Nodes with singletons that note what they do, and the history of it."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.drops: list[Drop] = []
        self.resumptions: list[Resumption] = []

    def marks(self, lease: str) -> list[Mark]:
        """What holders of a lease did outside of the database, in order."""
        marks = read_marks(self.folder / f"{node.name}.marks" for node in self.nodes)
        return sorted((mark for mark in marks if mark.lease == lease), key=lambda mark: mark.at_s)

    def wait_until_works(self, lease: str, node: Node) -> None:
        """Wait until a node works under a lease, inside of the database and outside."""
        worked = f"select 1 from torture.turn where not is_take and lease = '{lease}' and node = '{node.identity}'"
        self.nodes.wait_until(lambda: self.nodes.postgres.execute(worked), f"{node.name} does not work under {lease}")
        self.nodes.wait_until(
            lambda: any(m.node == node.identity for m in self.marks(lease)), f"{node.name} does not run {lease}"
        )

    def epoch(self, lease: str) -> int:
        """The newest epoch of a lease."""
        return int(self.nodes.postgres.execute(f"select epoch from supervisor.lease where name = '{lease}'"))

    def taken_at_s(self, lease: str) -> float:
        """When a lease got its holder, by the server's clock."""
        taken = f"select extract(epoch from acquired_at) from supervisor.lease where name = '{lease}'"
        return float(self.nodes.postgres.execute(taken))

    def server_time_s(self) -> float:
        """The server's clock."""
        return float(self.nodes.postgres.execute("select extract(epoch from clock_timestamp())"))

    def wait_until_all_have_joined(self, identities: list[str]) -> None:
        """Wait until all these nodes are registered by a session that lives."""
        living = (
            "select n.name from supervisor.node n join supervisor.lock_holders h on h.kind = 'node' and h.id = n.id"
        )
        self.nodes.wait_until(
            lambda: set(self.nodes.postgres.execute(living).splitlines()) == set(identities),
            f"not all of {identities} are back",
        )

    def history(self) -> History:
        """Everything so far."""
        return asyncio.run(self._history())

    async def _history(self) -> History:
        async with connection(self.nodes.postgres.dsn()) as connected:
            turns = await Rows(connected).turns()
        marks = read_marks(self.folder / f"{node.name}.marks" for node in self.nodes)
        return History({}, turns=turns, marks=marks, drops=self.drops, resumptions=self.resumptions)


@pytest.fixture
def make_case(postgres: Postgres, tmp_path: Path) -> Iterator[Callable[..., Case]]:
    """A maker of a case: how many nodes, none of them started, and which leases."""
    asyncio.run(create_ledger(postgres.dsn()))
    with contextlib.ExitStack() as stack:

        def make(count: int, *leases: str) -> Case:
            text = DATABASE + "".join(WORKER.format(name=lease) for lease in leases)
            nodes = stack.enter_context(several_nodes(tmp_path, postgres, count, text, WORKERS + BOTH))
            for node in nodes:
                marks = str(tmp_path / f"{node.name}.marks")
                node.daemon.environ |= {"TORTURE_NODE": node.name, "TORTURE_MARKS": marks}
            return Case(nodes, tmp_path)

        yield make


def test_passes_on_from_nodes_that_are_cut_off_muted_deafened_and_frozen(make_case: Callable[..., Case]) -> None:
    """Who cannot reach the server stops before it lets go; who was frozen writes nothing when it wakes up."""
    victims = ("cut-off", "muted", "deafened", "frozen")
    case = make_case(5, *victims)
    case.nodes.start()
    cut_off, muted, deafened, frozen, heir = _each_with_its_own(case, victims)
    begun_s, begun_at_s = time.monotonic(), case.server_time_s()
    cut_off.cut_off()
    muted.cut_off("to_server")
    deafened.cut_off("to_client")
    frozen.freeze()
    for lease in victims:
        case.nodes.wait_for_holder(lease, [heir])
        assert case.taken_at_s(lease) - begun_at_s < PASSED_ON_S
        case.wait_until_works(lease, heir)
    mark = frozen.daemon.mark
    case.resumptions.append(Resumption(frozen.identity, time.monotonic()))
    frozen.thaw()
    frozen.daemon.wait_for("lease.lost", lease="frozen", after=mark)
    back_s = time.monotonic()
    for node in (cut_off, muted, deafened):
        node.rejoin()
    identities = [node.identity for node in case.nodes]
    case.wait_until_all_have_joined(identities)
    assert [node.stop() for node in case.nodes] == [0] * 5
    assert check(case.history()) == []
    for lease, node in zip(victims, (cut_off, muted, deafened), strict=False):
        # Back among the others it may hold the lease again.
        last_s = max(mark.at_s for mark in case.marks(lease) if mark.node == node.identity and mark.at_s < back_s)
        assert begun_s < last_s < begun_s + TRUST_S + GRACE_S


def _each_with_its_own(case: Case, leases: Sequence[str]) -> list[Node]:
    """Wait until each lease is worked under by a node of its own; return these, and then the others.

    Leases move until the shares are fair, so all holders are read at one moment. From then on nothing moves: a node
    with a single lease gives it to nobody.
    """
    by_identity = {node.identity: node for node in case.nodes}

    def spread() -> list[Node] | None:
        found = case.nodes.holders()
        holders = [by_identity[found[lease].node] for lease in leases if lease in found]
        return holders if len({node.name for node in holders}) == len(leases) else None

    holders = case.nodes.wait_until(spread, f"{leases} are not with a node each")
    for lease, node in zip(leases, holders, strict=True):
        case.wait_until_works(lease, node)
    return [*holders, *(node for node in case.nodes if node not in holders)]


def test_an_ended_session_writes_nothing_more(make_case: Callable[..., Case]) -> None:
    """The server ends the session that holds the lock while a rival waits: nothing stale is ever written."""
    case = make_case(2, "main")
    case.nodes.start()
    for _ in range(3):
        holder = case.nodes.wait_for_holder("main")
        case.wait_until_works("main", holder)
        epoch, begun_s = case.epoch("main"), time.monotonic()
        assert holder.end_lock_session()
        case.drops.append(Drop(holder.identity, begun_s, time.monotonic()))
        case.nodes.wait_until(lambda before=epoch: case.epoch("main") > before, "nobody takes it over")  # type: ignore[misc]
        case.wait_until_works("main", case.nodes.wait_for_holder("main"))
    assert any(node.daemon.said("lease.lost") for node in case.nodes)
    assert [node.stop() for node in case.nodes] == [0, 0]
    history = case.history()
    assert check(history) == []
    # It notices at once; what it does outside of the database until it has ended is its own.
    assert longest_overlap_s(history) < GRACE_S


def test_who_waits_says_who_holds_and_takes_over_from_the_dead(make_case: Callable[..., Case]) -> None:
    """A waiting node names the holder, its host, process and since when, and replaces it once it is killed."""
    case = make_case(2, "main")
    case.nodes.start()
    holder = case.nodes.wait_for_holder("main")
    case.wait_until_works("main", holder)
    (waiting,) = (node for node in case.nodes if node is not holder)
    (row,) = (row for row in status(waiting.daemon)["nodes"] if row["leases"])
    assert (row["name"], row["host"], row["pid"]) == (holder.identity, socket.gethostname(), holder.daemon.pid)
    assert [(lease["name"], lease["epoch"]) for lease in row["leases"]] == [("main", case.epoch("main"))]
    assert row["leases"][0]["since"] is not None
    killed_at_s = case.server_time_s()
    holder.kill()
    case.wait_until_works("main", waiting)
    assert case.taken_at_s("main") - killed_at_s < TAKEN_OVER_S
    assert waiting.stop() == 0
    assert check(case.history()) == []


def test_ten_nodes_start_in_the_same_instant_on_an_empty_database(postgres: Postgres, tmp_path: Path) -> None:
    """One schema, no warning, and each lease has one holder."""
    leases = [f"lease-{number}" for number in range(10)]
    text = DATABASE + "".join(WORKER.format(name=lease).replace("both", "beat") for lease in leases)
    idle = "async def beat(ctx):\n    while not ctx.stopping:\n        await ctx.sleep(60)\n"
    with several_nodes(tmp_path, postgres, 10, text, idle) as nodes:
        nodes.start()
        for lease in leases:
            nodes.wait_for_holder(lease)
        assert postgres.execute("select count(*) from supervisor.node") == "10"
        versions = postgres.execute("select count(*), max(version) from supervisor.migration")
        assert versions == f"{len(migration_files())}|{len(migration_files())}"
        assert sum(len(node.daemon.said("schema.applied")) for node in nodes) == 1
        loud = [entry for node in nodes for entry in node.daemon.entries if entry["level"] not in ("info", "debug")]
        assert loud == []
        assert [node.daemon.other_lines for node in nodes] == [[]] * 10
