"""The statements behind `status` of all nodes, and what becomes of their rows."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from asyncpg import Record

# The lock tells who lives and who holds; a row tells who they say they are. A lease whose row names somebody else is
# just being taken over.
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

# Of each shard's backlog only the first positions are looked at, all shards together a bounded number: somebody waits
# for this. $1 names the patterns of each projection's streams, $2 the positions.
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
                "started": _iso(node["started_at"]),
                "since": _iso(node["joined_at"]),
                "wants": node["wants"],
                "leases": [
                    {"name": each["lease"], "epoch": each["epoch"], "since": _iso(each["acquired_at"])}
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
        rows.append({"name": name, "shards": shards} | _sum(shards))
    return rows


def with_lag(nodes: Iterable[dict[str, Any]], projections: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes with the lag of the shards that each holds."""
    shards = {shard["lease"]: shard for projection in projections for shard in projection["shards"]}
    return [node | _sum([shards[each["name"]] for each in node["leases"] if each["name"] in shards]) for node in nodes]


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


def _sum(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not shards:
        return {"lag_events": None, "lag_exact": None, "lag_s": None}
    return {
        "lag_events": sum(shard["lag_events"] for shard in shards),
        "lag_exact": all(shard["lag_exact"] for shard in shards),
        "lag_s": max((shard["lag_s"] for shard in shards if shard["lag_s"] is not None), default=None),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")
