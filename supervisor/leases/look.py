"""What a node sees when it looks at the database: who lives, who holds what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# One statement for all: is the connection alive and of use, is this still our session, who holds what.
SNAPSHOT_SQL = """
    SELECT pg_catalog.pg_is_in_recovery() AS is_standby, l.backend, l.is_registered, l.nodes, l.roster, l.leases,
        l.holders, l.head
    FROM supervisor.look($1) AS l
"""
NODES = "SELECT n.id, n.name, n.host, n.pid, n.started_at, n.wants FROM supervisor.node n WHERE n.id = ANY ($1)"
LEASES = "SELECT l.id, l.name, l.node, l.node_id, l.acquired_at FROM supervisor.lease l WHERE l.id = ANY ($1)"


class ClusterSnapshot(NamedTuple):
    """One answer of the database.

    Attributes:
        sent_s: When the question was sent.
        backend: The process id of the session that answered.
        is_registered: Whether that session is still this node's, and its row is there.
        nodes: The nodes that live.
        roster: Grows when a node's row changes.
        leases: The leases whose locks are held, in order.
        holders: For each of them the node that holds it, 0: a session that is no node's.
        head: The position of the newest event, or above it.
        is_standby: Whether the server is none that can be written.
    """

    sent_s: float
    backend: int
    is_registered: bool
    nodes: Sequence[int]
    roster: int
    leases: Sequence[int]
    holders: Sequence[int]
    head: int
    is_standby: bool

    def shows_the_same(self, other: ClusterSnapshot | None) -> bool:
        """Whether nothing has changed that anything is decided by."""
        # Lists of numbers compare in microseconds; a thousand of them become a dictionary in a hundred.
        return other is not None and self[1:7] == other[1:7]

    def holder_of(self) -> dict[int, int]:
        """Return the holder of each lease that is held."""
        return dict(zip(self.leases, self.holders, strict=True))


def look_of(row: Any, sent_s: float) -> ClusterSnapshot:
    """Return what a row of `SNAPSHOT_SQL` says."""
    return ClusterSnapshot(sent_s=sent_s, **dict(row))


class Peer(NamedTuple):
    """A node that lives, as its row has it.

    Attributes:
        id: Its row.
        name: Daemon, host and process in one.
        host: Where it runs.
        pid: Its process there.
        started: When the process began.
        wants: The leases that it is ready to hold.
    """

    id: int
    name: str
    host: str
    pid: int
    started: datetime
    wants: frozenset[int]

    def describe(self) -> dict[str, object]:
        """Return what a status says of it."""
        return {
            "id": self.id,
            "name": self.name,
            "host": self.host,
            "pid": self.pid,
            "started": self.started,
            "wants": len(self.wants),
        }


class Holder(NamedTuple):
    """Who holds a lease.

    Attributes:
        name: The node; empty: a session that is no node's.
        host: Where it runs.
        pid: Its process there.
        since: When it acquired the lease; None: it is just doing so, or it is not known.
    """

    name: str
    host: str
    pid: int
    since: datetime | None
