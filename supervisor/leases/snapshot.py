"""What a node reads from the database about all nodes: which are alive, and which lease each holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# One statement answers everything: whether the connection works and can write, whether this session is still the
# node's, and which node holds which lease.
SNAPSHOT_SQL = """
    SELECT pg_catalog.pg_is_in_recovery() AS is_standby, l.backend, l.is_registered, l.nodes, l.nodes_version, l.leases,
        l.holders, l.head
    FROM supervisor.cluster_snapshot($1) AS l
"""
NODES_SQL = """
    SELECT n.id, n.name, n.host, n.pid, n.wanted_leases FROM supervisor.node n WHERE n.id = ANY ($1)
"""
LEASES_SQL = "SELECT l.id, l.name, l.node, l.node_id, l.acquired_at FROM supervisor.lease l WHERE l.id = ANY ($1)"


class ClusterSnapshot(NamedTuple):
    """One answer of the database.

    Attributes:
        sent_s: When the statement was sent.
        backend: The process id of the server process that answered.
        is_registered: Whether its session is still this node's, and the node's row exists.
        nodes: The nodes that are alive.
        nodes_version: Grows when a node's row changes.
        leases: The leases whose locks are held, in order.
        holders: The node that holds each of them, 0: a session that is not a node's.
        head: The position of the newest event, or above it.
        is_standby: Whether the server is a standby.
    """

    sent_s: float
    backend: int
    is_registered: bool
    nodes: Sequence[int]
    nodes_version: int
    leases: Sequence[int]
    holders: Sequence[int]
    head: int
    is_standby: bool

    @classmethod
    def from_row(cls, row: Any, sent_s: float) -> ClusterSnapshot:
        """Return what a row of `SNAPSHOT_SQL` says."""
        return cls(
            sent_s=sent_s,
            backend=row["backend"],
            is_registered=row["is_registered"],
            nodes=row["nodes"],
            nodes_version=row["nodes_version"],
            leases=row["leases"],
            holders=row["holders"],
            head=row["head"],
            is_standby=row["is_standby"],
        )

    def equals(self, other: ClusterSnapshot | None) -> bool:
        """Whether everything that a plan depends on is the same."""
        # Lists of numbers compare in microseconds; making a dictionary of a thousand takes a hundred.
        return other is not None and self[1:7] == other[1:7]

    def holder_by_lease(self) -> dict[int, int]:
        """Return the holder of each lease that is held."""
        return dict(zip(self.leases, self.holders, strict=True))


class NodeInfo(NamedTuple):
    """A living node, as its row describes it.

    Attributes:
        id: Its row.
        name: Daemon, host and process in one.
        host: Where it runs.
        pid: Its process there.
        wanted: The leases that it is ready to hold.
    """

    id: int
    name: str
    host: str
    pid: int
    wanted: frozenset[int]

    @classmethod
    def from_row(cls, row: Any) -> NodeInfo:
        """Return what a row of `NODES_SQL` says."""
        return cls(row["id"], row["name"], row["host"], row["pid"], frozenset(row["wanted_leases"]))


class LeaseHolder(NamedTuple):
    """Which node holds a lease.

    Attributes:
        name: The node; empty: a session that is not a node's.
        host: Where it runs.
        pid: Its process there.
        since: When it acquired the lease; None: the acquisition is not finished, or the time is not known.
    """

    name: str
    host: str
    pid: int
    since: datetime | None
