"""The living nodes, what each wants, and which of them hold the leases that this node waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event
from supervisor.leases.lease_log import abbreviated, lease_field
from supervisor.leases.snapshot import LEASES_SQL, NODES_SQL, LeaseHolder, NodeInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.local_lease import LocalLease
    from supervisor.leases.registration import NodeSession
    from supervisor.leases.snapshot import ClusterSnapshot

WAITING_LOGGED_AFTER_S = 10.0
_MIN_FETCH_INTERVAL_S = 1.0


class Peers:
    """The rows of the living nodes, fetched again when one has changed.

    Attributes:
        nodes: The living nodes by their rows, this one included.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.nodes: Mapping[int, NodeInfo] = {}
        self._clock = clock
        self._version: tuple[Any, int] = (None, -1)
        self._acquired: dict[int, tuple[int | None, datetime | None]] = {}
        self._fetched_s = float("-inf")
        self._holder_since: dict[str, tuple[int, float]] = {}
        self._logged: dict[str, int] = {}

    def clear(self) -> None:
        """Fetch everything again: the session is a new one."""
        self._version = (None, -1)
        self._acquired.clear()

    async def refresh(self, current: NodeSession, snapshot: ClusterSnapshot) -> None:
        """Fetch the rows again if a node came, went or changed; raises as `Session.execute` does."""
        version = (snapshot.nodes, snapshot.nodes_version)
        if version == self._version:
            return
        rows = await current.session.fetch(NODES_SQL, snapshot.nodes)
        former, self.nodes = self.nodes, {row["id"]: NodeInfo.from_row(row) for row in rows}
        is_first = self._version[0] is None
        self._version = version
        if is_first:
            _log_joined(current.id, self.nodes)
        elif former.keys() != self.nodes.keys():
            _log_change(former, self.nodes)

    async def update_holders(
        self, session: Session, snapshot: ClusterSnapshot, waiting: Collection[LocalLease]
    ) -> None:
        """Set the holder of each lease that this node waits for. Raises as `Session.execute` does."""
        holders = snapshot.holder_by_lease()
        now_s = self._clock.now_s()
        for lease in waiting:
            node = holders.get(lease.id or 0)
            known = self._holder_since.get(lease.name)
            if node is None:
                self._holder_since.pop(lease.name, None)
            elif known is None or known[0] != node:
                self._holder_since[lease.name] = (node, now_s)
        unknown = [
            lease.id
            for lease in waiting
            if lease.id in holders and self._acquired.get(lease.id, (None,))[0] != holders[lease.id]
        ]
        if unknown and now_s >= self._fetched_s + _MIN_FETCH_INTERVAL_S:
            self._fetched_s = now_s
            for row in await session.fetch(LEASES_SQL, unknown):
                self._acquired[row["id"]] = (row["node_id"], row["acquired_at"])
        for lease in waiting:
            lease.holder = self._holder(lease.id, holders)

    def _holder(self, lease: int | None, holders: Mapping[int, int]) -> LeaseHolder | None:
        if lease is None or lease not in holders:
            return None
        node = holders[lease]
        peer = self.nodes.get(node)
        if peer is None:
            return LeaseHolder("", "", 0, None)
        acquired_by, since = self._acquired.get(lease, (None, None))
        return LeaseHolder(peer.name, peer.host, peer.pid, since if acquired_by == node else None)

    def log_waiting(self, waiting: Collection[LocalLease]) -> None:
        """Log once which node holds what this node has waited for a while; and again when the holder changes."""
        now_s = self._clock.now_s()
        names = {lease.name for lease in waiting}
        self._logged = {name: node for name, node in self._logged.items() if name in names}
        due = []
        for lease in waiting:
            node, since_s = self._holder_since.get(lease.name, (0, now_s))
            is_long = now_s >= max(lease.waiting_since_s, since_s) + WAITING_LOGGED_AFTER_S
            if is_long and lease.holder is not None and self._logged.get(lease.name) != node:
                self._logged[lease.name] = node
                due.append(lease)
        if due:
            _log_waiting(due)


def _log_joined(me: int, nodes: Mapping[int, NodeInfo]) -> None:
    others = abbreviated([peer.name for node, peer in nodes.items() if node != me])
    this = nodes.get(me)
    log_event("node.joined", node=this.name if this else me, nodes=len(nodes.keys() - {me}), others=others)


def _log_change(former: Mapping[int, NodeInfo], nodes: Mapping[int, NodeInfo]) -> None:
    came = abbreviated([peer.name for node, peer in nodes.items() if node not in former])
    went = abbreviated([peer.name for node, peer in former.items() if node not in nodes])
    fields: dict[str, Any] = {**({"came": came} if came else {}), **({"went": went} if went else {})}
    log_event("node.members_changed", nodes=len(nodes), **fields)


def _log_waiting(leases: list[LocalLease]) -> None:
    fields: dict[str, Any] = {"leases": len(leases), **lease_field([lease.name for lease in leases])}
    holders = {lease.holder for lease in leases if lease.holder is not None}
    names = sorted({holder.name or "a session that is no node's" for holder in holders})
    fields["holder"] = abbreviated(names)
    if len(names) == 1:
        holder = next(iter(holders))
        if holder.name:
            fields |= {"holder_host": holder.host, "holder_pid": holder.pid}
        if len(leases) == 1 and holder.since is not None:
            fields["since"] = holder.since
    log_event("lease.waiting", **fields)
