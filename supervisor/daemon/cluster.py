"""What `status` says of all nodes: who lives, which leases each holds, and how far the projections lag.

`status` asks the database anew each time, because that is the one view all nodes share; and because it is what an
operator types when something is wrong, it asks on a connection of its own, which no worker can keep from it, and never
waits longer than a second for the answer. It then shows what was known last, or else what the node itself remembers
(`cluster_memory.py`), and says so.

The answer adds to `status --json`:

```text
nodes        [{"name", "id", "host", "pid", "version", "this", "started", "since", "wants",
               "leases": [{"name", "epoch", "since"}],
               "lag_events", "lag_exact", "lag_s"}]
               every living node by name; `this` marks the one that answers. `since`: of the node, when it joined, null:
               the row comes from memory, with those leases alone that this node holds or waits for; of a lease, when
               it was acquired. `wants`: how many leases it is ready to hold. The lag is that of the shards
               it holds: their sum in events, the largest in seconds; null where none is known.
projections  [{"name", "shards": [{"lease", "shard", "shards", "position", "applied", "poison", "error",
               "lag_events", "lag_exact", "lag_s"}], "lag_events", "lag_exact", "lag_s"}]
               the projections of this daemon's configuration, whoever runs them. An inexact number of events is an
               estimate from the first ones; `lag_s` is the age of the oldest event that is not applied, 0 without any,
               null when none is among the first ones.
cluster      {"age_s", "problem", "trouble"}
               how old the rows above are (null: there are none, or from memory alone), why they are not fresh (null:
               they are), and what keeps this node from holding leases (null: nothing).
```

Times are ISO 8601, durations seconds. A daemon none of whose workers needs a lease is no node, and says none of this.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.clock import done_within
from supervisor.config.model import Projection
from supervisor.daemon.cluster_memory import remembered_rows
from supervisor.daemon.cluster_rows import NODES_SQL, SHARD_LAG_SQL, node_rows, projection_rows, with_lag
from supervisor.events.shard import like_patterns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    import asyncpg

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.database.database import Database
    from supervisor.leases.node import Node
    from supervisor.tasks import BackgroundTasks

_LIMIT_S = 1.0
# A statement whose answer nobody waits for any more is not to stay in a queue for a lock.
_SERVERS_LIMIT = "SET statement_timeout = '2s'"
_POSITIONS = 100_000


class Question(NamedTuple):
    """What is asked.

    Attributes:
        this: The node that asks; None: it has not joined yet.
        trouble: What keeps it from holding leases.
        streams: For each projection of the configuration, the LIKE patterns of its streams.
        remembered: What the node that asks says of itself and the others without asking, `Node.describe()`.
    """

    this: int | None
    trouble: str | None
    streams: Mapping[str, Sequence[str]]
    remembered: Mapping[str, Any] | None = None


def question_of(config: Config, node: Node) -> Question:
    """Return what is asked by a node with a configuration."""
    projections = {name: spec.kind for name, spec in config.workers.items() if isinstance(spec.kind, Projection)}
    streams = {name: like_patterns(kind.streams) for name, kind in projections.items()}
    return Question(node.id, node.problem, streams, node.describe())


class Cluster:
    """What is known of the nodes, and the one question in flight that refreshes it."""

    def __init__(self, *, clock: Clock, tasks: BackgroundTasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._asking: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._asked_s: float | None = None
        self._nodes: list[dict[str, Any]] = []
        self._projections: list[dict[str, Any]] = []

    async def look(self, database: Database | None, question: Question) -> dict[str, Any]:
        """Return the rows of `status`, fresh ones if the database gives them within a second."""
        if database is None or not database.is_up:
            self._problem = "the database is away"
        else:
            await self._ask(database, question)
        age_s = None if self._asked_s is None else round(self._clock.now_s() - self._asked_s, 1)
        nodes = self._nodes
        if self._asked_s is None and question.remembered is not None:
            nodes = remembered_rows(question.remembered)
        return {
            "nodes": with_lag(nodes, self._projections),
            "projections": self._projections,
            "cluster": {"age_s": age_s, "problem": self._problem, "trouble": question.trouble},
        }

    async def _ask(self, database: Database, question: Question) -> None:
        if self._asking is None or self._asking.done():
            self._asking = self._tasks.start(self._refresh(database, question), name="status: nodes")
        # A task of its own: giving a connection back after a cancel can take longer than anybody waits for a status.
        if not await done_within(self._asking, _LIMIT_S, clock=self._clock):
            self._problem = f"the database did not answer within {_LIMIT_S:g}s"
            self._asking.cancel()

    async def _refresh(self, database: Database, question: Question) -> None:
        link, connection = database.monitor.connected, None
        if link is None:
            self._problem = "the database is away"
            return
        try:
            # The pool is the workers', who may keep all of it, and the session is the node's, which must not wait.
            connection = await database.monitor.connector.connect(link.endpoint)
            await connection.execute(_SERVERS_LIMIT)
            await self._read(connection, question)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must end neither the status nor the daemon
            self._problem = f"the database could not be asked ({type(error).__name__}: {error})"
        finally:
            if connection is not None:
                connection.terminate()

    async def _read(self, connection: asyncpg.Connection, question: Question) -> None:
        """Read the nodes, then the lag: a long backlog must not hide who holds what."""
        began_s = self._clock.now_s()
        self._nodes = node_rows(await connection.fetch(NODES_SQL), question.this)
        self._asked_s, self._problem = began_s, None
        self._projections = []
        if question.streams:
            records = await connection.fetch(SHARD_LAG_SQL, json.dumps(question.streams), _POSITIONS)
            self._projections = projection_rows(records)
