"""Who the other nodes are, what each wants, and who holds what this node waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event
from supervisor.leases.look import LEASES, NODES, Holder, Peer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.joining import Joined
    from supervisor.leases.look import ClusterSnapshot
    from supervisor.leases.stand import LocalLease

WAITING_TOLD_AFTER_S = 10.0
_BETWEEN_READS_S = 1.0
_NAMED = 5


class Roster:
    """The rows of the living nodes, read again when one has changed.

    Attributes:
        peers: The living nodes by their rows.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.peers: Mapping[int, Peer] = {}
        self._clock = clock
        self._seen: tuple[Any, int] = (None, -1)
        self._since: dict[int, tuple[int | None, datetime | None]] = {}
        self._read_s = float("-inf")
        self._held_by: dict[str, tuple[int, float]] = {}
        self._told: dict[str, int] = {}

    def forget(self) -> None:
        """Read everything again: the session is a new one."""
        self._seen = (None, -1)
        self._since.clear()

    async def refresh(self, joined: Joined, look: ClusterSnapshot) -> None:
        """Read the rows again if a node came, went or changed; raises as `Session.do` does."""
        seen = (look.nodes, look.roster)
        if seen == self._seen:
            return
        rows = await joined.session.fetch(NODES, look.nodes)
        former, self.peers = self.peers, {row["id"]: _peer(row) for row in rows}
        is_first = self._seen[0] is None
        self._seen = seen
        if is_first:
            _tell_joined(joined.id, self.peers)
        elif former.keys() != self.peers.keys():
            _tell_change(former, self.peers)

    async def find_holders(self, session: Session, look: ClusterSnapshot, waiting: Collection[LocalLease]) -> None:
        """Note with each stand that waits who holds its lease. Raises as `Session.do` does."""
        holder_of = look.holder_of()
        now_s = self._clock.now_s()
        for stand in waiting:
            node = holder_of.get(stand.id or 0)
            known = self._held_by.get(stand.name)
            if node is None:
                self._held_by.pop(stand.name, None)
            elif known is None or known[0] != node:
                self._held_by[stand.name] = (node, now_s)
        unknown = [
            stand.id
            for stand in waiting
            if stand.id in holder_of and self._since.get(stand.id, (None,))[0] != holder_of[stand.id]
        ]
        if unknown and now_s >= self._read_s + _BETWEEN_READS_S:
            self._read_s = now_s
            for row in await session.fetch(LEASES, unknown):
                self._since[row["id"]] = (row["node_id"], row["acquired_at"])
        for stand in waiting:
            stand.holder = self._holder(stand.id, holder_of)

    def _holder(self, lease: int | None, holder_of: Mapping[int, int]) -> Holder | None:
        if lease is None or lease not in holder_of:
            return None
        node = holder_of[lease]
        peer = self.peers.get(node)
        if peer is None:
            return Holder("", "", 0, None)
        named, since = self._since.get(lease, (None, None))
        return Holder(peer.name, peer.host, peer.pid, since if named == node else None)

    def tell_waiting(self, waiting: Collection[LocalLease]) -> None:
        """Say once who holds what this node waits for, when that takes long; and again when it is somebody else."""
        now_s = self._clock.now_s()
        names = {stand.name for stand in waiting}
        self._told = {name: node for name, node in self._told.items() if name in names}
        due = []
        for stand in waiting:
            node, since_s = self._held_by.get(stand.name, (0, now_s))
            is_long = now_s >= max(stand.offered_s, since_s) + WAITING_TOLD_AFTER_S
            if is_long and stand.holder is not None and self._told.get(stand.name) != node:
                self._told[stand.name] = node
                due.append(stand)
        if due:
            _tell_waiting(due)


def _peer(row: Any) -> Peer:
    return Peer(row["id"], row["name"], row["host"], row["pid"], row["started_at"], frozenset(row["wants"]))


def _tell_joined(me: int, peers: Mapping[int, Peer]) -> None:
    others = _names([peer.name for node, peer in peers.items() if node != me])
    this = peers.get(me)
    log_event("node.joined", node=this.name if this else me, nodes=len(peers.keys() - {me}), others=others)


def _tell_change(former: Mapping[int, Peer], peers: Mapping[int, Peer]) -> None:
    came = _names([peer.name for node, peer in peers.items() if node not in former])
    went = _names([peer.name for node, peer in former.items() if node not in peers])
    fields: dict[str, Any] = {**({"came": came} if came else {}), **({"went": went} if went else {})}
    log_event("node.roster", nodes=len(peers), **fields)


def _tell_waiting(stands: list[LocalLease]) -> None:
    fields: dict[str, Any] = {"leases": len(stands)}
    if len(stands) <= _NAMED:
        fields["lease"] = ", ".join(sorted(stand.name for stand in stands))
    holders = {stand.holder for stand in stands if stand.holder is not None}
    named = sorted({holder.name or "a session that is no node's" for holder in holders})
    fields["holder"] = _names(named)
    if len(named) == 1:
        holder = next(iter(holders))
        if holder.name:
            fields |= {"holder_host": holder.host, "holder_pid": holder.pid}
        if len(stands) == 1 and holder.since is not None:
            fields["since"] = holder.since
    log_event("lease.waiting", **fields)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + more
