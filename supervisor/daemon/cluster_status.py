"""The part of `status` about all nodes: which are alive, which leases each holds, and how far the projections lag.

`status` queries the database each time, because only the database has the view that all nodes share. An operator types
it when something is wrong: so it has a connection of its own, which no worker can occupy, and waits at most a second.
Without an answer it shows the last one, with its age and the reason. Before the first answer there are no rows.

The answer adds to `status --json`:

```text
nodes        [{"name", "id", "host", "pid", "version", "this", "started", "since", "wants",
               "leases": [{"name", "epoch", "since"}],
               "lag_events", "lag_exact", "lag_s"}]
               every living node by name; `this` marks the one that answers. `since`: of the node, when it joined; of
               a lease, when it was acquired. `wants`: how many leases it is ready to hold. The lag is that of the
               shards it holds: their sum in events, the largest in seconds; null where none is known.
projections  [{"name", "shards": [{"lease", "shard", "shards", "position", "applied", "poison", "error",
               "lag_events", "lag_exact", "lag_s"}], "lag_events", "lag_exact", "lag_s"}]
               the projections of this daemon's configuration, on any node. An inexact number of events is an
               estimate from the first ones; `lag_s` is the age of the oldest event that is not applied, 0 without any,
               null when none is among the first ones.
cluster      {"age_s", "problem", "trouble"}
               how old the rows above are (null: there are none), why they are not fresh (null: they are), and what
               keeps this node from holding leases (null: nothing).
```

Times are ISO 8601, durations seconds. A daemon whose workers need no lease is no node, and has none of these rows.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.clock import done_within
from supervisor.config.model import Projection
from supervisor.escaping import isoformat
from supervisor.events.shard import like_patterns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

    import asyncpg
    from asyncpg import Record

    from supervisor.clock import Clock
    from supervisor.config.model import Config
    from supervisor.database.database import Database
    from supervisor.leases.node import Node
    from supervisor.tasks import BackgroundTasks

_TIMEOUT_S = 1.0
# A statement must not stay in a queue for a lock when its answer is not awaited any more.
_STATEMENT_TIMEOUT_SQL = "SET statement_timeout = '2s'"
_MAX_POSITIONS = 100_000

# A lock shows that a node lives or that a lease is held; the row has the details. A lease whose row names another node
# is just being acquired.
NODES_SQL = """
    WITH held AS MATERIALIZED (SELECT h.kind, h.id, h.pid FROM supervisor.lock_holders h)
    SELECT n.id, n.name, n.host, n.pid, n.version, n.started_at, n.joined_at, cardinality(n.wanted_leases) AS wants,
        l.name AS lease, l.epoch, l.acquired_at
    FROM held alive
    JOIN supervisor.node n ON n.id = alive.id
    LEFT JOIN (held taken JOIN supervisor.lease l ON taken.kind = 'lease' AND l.id = taken.id)
        ON taken.pid = alive.pid AND l.node_id = n.id
    WHERE alive.kind = 'node'
    ORDER BY n.name, n.id, l.name
"""

# Of each shard's backlog only the first positions are read, and a bounded number for all shards together: a person
# waits for this. $1: the patterns of each projection's streams; $2: how many positions.
SHARD_LAG_SQL = """
    WITH known AS (
        SELECT key AS name, ARRAY(SELECT jsonb_array_elements_text(value)) AS patterns FROM jsonb_each($1::jsonb)
    ), head AS MATERIALIZED (
        SELECT coalesce(max(e.position), 0) AS position FROM supervisor.event e
    ), shards AS MATERIALIZED (
        SELECT c.*, k.patterns, head.position AS head,
            (SELECT min(e.position) - 1 FROM supervisor.event e WHERE e.position > c.position) AS start,
            greatest($2::int / greatest(1, count(*) FILTER (WHERE c.position < head.position) OVER ()), 1000) AS most
        FROM supervisor.checkpoint c JOIN known k ON k.name = c.projection, head
    )
    SELECT s.projection, s.shard, s.shards, s.position, s.applied, s.poison, s.error,
        (supervisor.shard_leases(s.projection, s.shards))[s.shard + 1] AS lease,
        s.head, s.start, s.most, ahead.events, extract(epoch FROM clock_timestamp() - ahead.oldest)::float8 AS age_s
    FROM shards s CROSS JOIN LATERAL (
        SELECT count(*) AS events, min(e.at) AS oldest FROM supervisor.event e
        WHERE e.position > s.start AND e.position <= s.start + s.most
            AND e.bucket % s.shards = s.shard AND e.stream LIKE ANY (s.patterns)
            AND (s.previous_shardings = '[]' OR NOT EXISTS (
                SELECT FROM jsonb_array_elements(s.previous_shardings) AS sharding
                WHERE (sharding -> 'positions' ->> (e.bucket % (sharding ->> 'shards')::int))::bigint >= e.position
            ))
    ) AS ahead
    ORDER BY s.projection, s.shard
"""


class StatusQuery(NamedTuple):
    """A query for the status of all nodes.

    Attributes:
        this: The node that asks; None: it has not joined yet.
        problem: What keeps it from holding leases.
        streams: For each projection of the configuration, the LIKE patterns of its streams.
    """

    this: int | None
    problem: str | None
    streams: Mapping[str, Sequence[str]]


def status_query(config: Config, node: Node) -> StatusQuery:
    """Return the query of a node with a configuration."""
    projections = {name: spec.kind for name, spec in config.workers.items() if isinstance(spec.kind, Projection)}
    streams = {name: like_patterns(kind.streams) for name, kind in projections.items()}
    return StatusQuery(node.id, node.problem, streams)


class ClusterStatus:
    """What is known of the nodes, and the one query in flight that refreshes it."""

    def __init__(self, *, clock: Clock, tasks: BackgroundTasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._refreshing: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._fetched_s: float | None = None
        self._nodes: list[dict[str, Any]] = []
        self._projections: list[dict[str, Any]] = []

    async def fetch(self, database: Database | None, query: StatusQuery) -> dict[str, Any]:
        """Return the rows of `status`, fresh ones if the database gives them within a second."""
        if database is None or not database.is_up:
            self._problem = "the database is unreachable"
        else:
            await self._refresh_or_time_out(database, query)
        age_s = None if self._fetched_s is None else round(self._clock.now_s() - self._fetched_s, 1)
        return {
            "nodes": add_lag(self._nodes, self._projections),
            "projections": self._projections,
            "cluster": {"age_s": age_s, "problem": self._problem, "trouble": query.problem},
        }

    async def _refresh_or_time_out(self, database: Database, query: StatusQuery) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._tasks.start(self._refresh(database, query), name="status: nodes")
        # A task of its own: releasing a connection after a cancel can take longer than the client waits.
        if not await done_within(self._refreshing, _TIMEOUT_S, clock=self._clock):
            self._problem = f"the database did not answer within {_TIMEOUT_S:g}s"
            self._refreshing.cancel()

    async def _refresh(self, database: Database, query: StatusQuery) -> None:
        connected, connection = database.monitor.connected, None
        if connected is None:
            self._problem = "the database is unreachable"
            return
        try:
            # The workers may hold the whole pool, and the session of the node must not wait.
            connection = await database.monitor.connector.connect(connected.endpoint)
            await connection.execute(_STATEMENT_TIMEOUT_SQL)
            await self._read(connection, query)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must end neither the status nor the daemon
            self._problem = f"the database could not be asked ({type(error).__name__}: {error})"
        finally:
            if connection is not None:
                connection.terminate()

    async def _read(self, connection: asyncpg.Connection, query: StatusQuery) -> None:
        """Read the nodes, then the lag: a long backlog must not hide which node holds which lease."""
        began_s = self._clock.now_s()
        self._nodes = node_rows(await connection.fetch(NODES_SQL), query.this)
        self._fetched_s, self._problem = began_s, None
        self._projections = []
        if query.streams:
            records = await connection.fetch(SHARD_LAG_SQL, json.dumps(query.streams), _MAX_POSITIONS)
            self._projections = projection_rows(records)


def node_rows(records: Sequence[Record], this: int | None) -> list[dict[str, Any]]:
    """Return one row a node, with its leases; `this` is the node that answers."""
    rows = []
    for _, group in groupby(records, key=lambda record: record["id"]):
        node, *_ = held = list(group)
        rows.append(
            {
                "name": node["name"],
                "id": node["id"],
                "host": node["host"],
                "pid": node["pid"],
                "version": node["version"],
                "this": node["id"] == this,
                "started": isoformat(node["started_at"]),
                "since": isoformat(node["joined_at"]),
                "wants": node["wants"],
                "leases": [
                    {"name": each["lease"], "epoch": each["epoch"], "since": isoformat(each["acquired_at"])}
                    for each in held
                    if each["lease"] is not None
                ],
            }
        )
    return rows


def projection_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return one row a projection, with its shards."""
    rows = []
    for name, group in groupby(records, key=lambda record: record["projection"]):
        shards = [_shard(record) for record in group]
        rows.append({"name": name, "shards": shards} | _total_lag(shards))
    return rows


def add_lag(nodes: Iterable[dict[str, Any]], projections: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes with the lag of the shards that each holds."""
    shards = {shard["lease"]: shard for projection in projections for shard in projection["shards"]}
    return [
        node | _total_lag([shards[each["name"]] for each in node["leases"] if each["name"] in shards]) for node in nodes
    ]


def _shard(record: Record) -> dict[str, Any]:
    names = ("lease", "shard", "shards", "position", "applied", "poison", "error")
    return {name: record[name] for name in names} | _lag(record)


def _lag(record: Record) -> dict[str, Any]:
    start, events = record["start"], record["events"]
    ahead = 0 if start is None else record["head"] - start
    is_exact = ahead <= record["most"]
    if not is_exact:
        events = round(events / record["most"] * ahead)
    age_s = record["age_s"]
    if age_s is None and is_exact:
        age_s = 0.0
    # By the server's clock alone; an event of this very moment can look younger than now.
    return {
        "lag_events": events,
        "lag_exact": is_exact,
        "lag_s": None if age_s is None else round(max(0.0, age_s), 3),
    }


def _total_lag(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not shards:
        return {"lag_events": None, "lag_exact": None, "lag_s": None}
    return {
        "lag_events": sum(shard["lag_events"] for shard in shards),
        "lag_exact": all(shard["lag_exact"] for shard in shards),
        "lag_s": max((shard["lag_s"] for shard in shards if shard["lag_s"] is not None), default=None),
    }
