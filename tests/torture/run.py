"""A whole run: servers, nodes and writers are started, disturbed, healed, waited for, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from support.nodes import several_nodes
from support.postgres import make_template, running_postgres, server_home
from support.schema import connection
from torture.checker import Violation, check
from torture.figures import Figures, figures_of
from torture.history import History, Reading
from torture.ledger import Rows, create_ledger, read_marks
from torture.nemesis import Nemesis
from torture.plan import plan
from torture.writers import Writers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.nodes import Nodes
    from support.postgres import Postgres

NODES = 4
WRITERS = 8
FIRST_SHARDS = 2
CONVERGENCE_LIMIT_S = 30.0
PROJECTIONS = {
    "orders": Reading(("orders-*",)),
    "everything": Reading(("*",)),
    "letters": Reading(("mail-*",), buries_poison=True),
}
_SINGLES = ("lamp", "beat", "stubborn", "tick", "everything", "letters")
_CONFIG = """
[supervisor]
stop_timeout = "2s"
[database]
dsn = "{{dsn}}"
connect_timeout = "2s"
runtime = {{ initial = "100ms", max = "1s" }}
[workers.lamp]
run = "workers:lamp"
singleton = true
{patient}
[workers.beat]
run = "workers:beat"
singleton = true
{patient}
[workers.stubborn]
run = "workers:stubborn"
singleton = true
settings = {{ dsn = "{{dsn}}" }}
{patient}
[workers.tick]
kind = "periodic"
every = "100ms"
run = "workers:tick"
singleton = true
{patient}
[workers.orders]
kind = "projection"
run = "workers:apply"
streams = ["orders-*"]
batch = 50
shards = {shards}
{patient}
[workers.everything]
kind = "projection"
run = "workers:apply"
batch = 100
{patient}
[workers.letters]
kind = "projection"
run = "workers:apply"
streams = ["mail-*"]
poison = "dead-letter"
settings = {{ chokes = true }}
{patient}
"""
# The text of each daemon's module `workers`.
WORKERS = Path(__file__).with_name("workload.py").read_text("utf-8")
_PATIENT = 'max_restarts = 1000\nbackoff = { initial = "100ms", max = "1s" }'


class Settings(NamedTuple):
    """How a run is to be.

    Attributes:
        seconds: How long it is disturbed; then it converges.
        seed: Of the plan and of what the writers write.
        keep: Where the daemons' folders stay; None: they are removed.
    """

    seconds: float
    seed: int
    keep: Path | None = None


class Outcome(NamedTuple):
    """What came of a run.

    Attributes:
        violations: What must never happen and did.
        complaints: What else was wrong: it did not converge, or a daemon did not end as it should.
        figures: How well it did meanwhile.
    """

    violations: list[Violation]
    complaints: list[str]
    figures: Figures


def torture(settings: Settings, template: Path, say: Callable[[str], None]) -> Outcome:
    """Do a run on a copy of the server `template`."""
    with (
        running_postgres(template) as postgres,
        _folder(settings.keep) as folder,
        several_nodes(folder, postgres, NODES, configuration(FIRST_SHARDS), WORKERS) as nodes,
    ):
        for node in nodes:
            marks = folder / f"{node.name}.marks"
            marks.unlink(missing_ok=True)
            node.daemon.environ |= {"TORTURE_NODE": node.name, "TORTURE_MARKS": str(marks)}
        return _Run(settings, postgres, nodes, folder, say).outcome()


@contextlib.contextmanager
def server_template() -> Iterator[Path]:
    """A data directory to copy servers from, for a run outside of the tests."""
    with server_home() as home:
        yield make_template(home)


def configuration(shards: int) -> str:
    """Return the nodes' configuration, `{dsn}` left in it."""
    return _CONFIG.format(shards=shards, patient=_PATIENT)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="torture-") as name:
            yield Path(name)


class _Run:
    """One run, step by step."""

    def __init__(
        self, settings: Settings, postgres: Postgres, nodes: Nodes, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._settings, self._postgres, self._nodes, self._folder, self._say = settings, postgres, nodes, folder, say
        self._acts = plan(Random(settings.seed), settings.seconds, NODES)
        reloads = [act.shards for act in self._acts if act.shards]
        self._shards = reloads[-1] if reloads else FIRST_SHARDS

    def outcome(self) -> Outcome:
        """Do everything and judge it."""
        asyncio.run(create_ledger(self._postgres.dsn()))
        self._nodes.start()
        writers = Writers(self._postgres.dsn(), count=WRITERS, seed=self._settings.seed)
        nemesis = Nemesis(self._nodes, self._postgres, configure=configuration)
        writers.start()
        nemesis.run(self._acts, self._settings.seconds, self._say)
        writers.stop()
        took_s = self._converge(nemesis)
        self._stop(nemesis)
        for node in self._nodes:
            (self._folder / f"{node.name}.journal").write_text(node.daemon.transcript(), "utf-8")
        history = asyncio.run(self._history(nemesis, writers))
        complaints = [*nemesis.complaints, *self._strange_lines()]
        return Outcome(check(history), complaints, figures_of(history, took_s, nemesis.ends))

    def _converge(self, nemesis: Nemesis) -> float:
        """Wait until every lease is held and every event applied; return how long it took."""
        begun_s = time.monotonic()
        while missing := self._missing():
            if time.monotonic() > begun_s + CONVERGENCE_LIMIT_S:
                nemesis.complaints.append(f"healed {CONVERGENCE_LIMIT_S:.0f} s ago, and still {missing}")
                break
            time.sleep(0.1)
        return time.monotonic() - begun_s

    def _missing(self) -> str:
        shards = ["orders"] if self._shards == 1 else [f"orders/{n + 1}of{self._shards}" for n in range(self._shards)]
        free = [lease for lease in (*_SINGLES, *shards) if self._nodes.holder(lease) is None]
        if free:
            return f"nobody holds {free}"
        behind = self._postgres.execute(
            "select e.position, e.stream, p from supervisor.event e, unnest('{orders,everything,letters}'::text[]) p "
            "where (p <> 'orders' or stream like 'orders-%') and (p <> 'letters' or stream like 'mail-%') "
            "and not exists (select from torture.applied a where a.projection = p and a.position = e.position) "
            "and not exists (select from supervisor.dead_letter d where d.projection = p and d.position = e.position) "
            "order by 1 limit 5"
        )
        return f"not applied: {behind.splitlines()}" if behind else ""

    def _stop(self, nemesis: Nemesis) -> None:
        for node in self._nodes:
            node.ask_to_stop()
        for node in self._nodes:
            if (status := node.exit_status) != 0:
                nemesis.complaints.append(f"{node.name} was stopped at the end and ended with {status}")

    async def _history(self, nemesis: Nemesis, writers: Writers) -> History:
        async with connection(self._postgres.dsn()) as connected:
            rows = Rows(connected)
            return History(
                projections=PROJECTIONS,
                attempts=writers.attempts,
                events=await rows.events(),
                turns=await rows.turns(),
                applied=await rows.applied(),
                buried=await rows.buried(),
                marks=read_marks(self._folder / f"{node.name}.marks" for node in self._nodes),
                drops=nemesis.drops,
                resumptions=nemesis.resumptions,
            )

    def _strange_lines(self) -> list[str]:
        return [f"{node.name} wrote: {line}" for node in self._nodes for line in node.daemon.other_lines]
