"""This node's place among the others: its row, its session, and what it is ready to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.leases.joining import join
from supervisor.leases.plan import SETTLE_S, Familiar
from supervisor.leases.stand import LeaseState

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.joining import Identity, Joined
    from supervisor.leases.stands import LocalLeases

_IDS = "SELECT i.name, i.id FROM supervisor.lease_ids($1) AS i"
_WANT = "SELECT supervisor.set_wants($1, $2) AS is_registered"
_FAMILIAR = (
    "SELECT l.id, l.node_id FROM supervisor.lease l WHERE l.id = ANY ($1) AND (l.node_id IS NULL OR l.node_id = $2)"
)
_LEAVE = "SELECT supervisor.leave_node($1)"


class Membership:
    """What the database knows of this node.

    Attributes:
        joined: Its session; None: it has none at the moment, or is to register again.
        is_withdrawn: Whether it takes nothing any more.
    """

    def __init__(self, identity: Identity, stands: LocalLeases, *, clock: Clock, idle_limit_s: float) -> None:
        self.joined: Joined | None = None
        self.is_withdrawn = False
        self._identity = identity
        self._former: Joined | None = None
        self._stands = stands
        self._clock = clock
        self._idle_limit_s = idle_limit_s
        self._published: frozenset[int] | None = None
        self._familiar = Familiar()

    @property
    def wants(self) -> frozenset[int]:
        """What this node is ready to hold now."""
        return frozenset() if self.is_withdrawn else self._stands.wanted()

    @property
    def is_published(self) -> bool:
        """Whether the others can know what it wants."""
        return self._published == self.wants

    @property
    def familiar(self) -> Familiar | None:
        """While others may yet come back: the leases that may be taken all the same. None: all may."""
        joined = self.joined
        if joined is not None and self._clock.now_s() >= joined.at_s + SETTLE_S:
            return None
        return self._familiar

    async def join(self, session: Session) -> Joined | None:
        """Make a session this node's, again if it is already; raises as `Session.do` does.

        Returns:
            The node's session; None: the former one lives on, and something still runs under its locks.
        """
        if self._former is not None and self._former.session.monitor is not session.monitor:
            self._former = None  # it is another database, perhaps
        # Even on the same one, after a restore, a failover or in a schema made anew, a row's id may be another lease's.
        self._stands.forget_rows()
        self._published = None
        await self._learn(session)
        wants = self.wants
        joined = await join(
            session, self._identity, wants, self._former, may_end_former=not self._stands.within(LeaseState.LOST),
            clock=self._clock, idle_limit_s=self._idle_limit_s,
        )  # fmt: skip
        if joined is None:
            return None
        self.joined = self._former = joined
        await self.read_familiar(joined)
        self._published = wants
        return joined

    def part(self) -> None:
        """Note that the session has ended, or is not this node's any more."""
        self.joined = None

    async def publish(self, joined: Joined) -> None:
        """Tell the others what this node wants, if that has changed; raises as `Session.do` does."""
        await self._learn(joined.session)
        wants = self.wants
        if wants == self._published:
            return
        [(is_registered,)] = await joined.session.fetch(_WANT, joined.id, sorted(wants))
        if is_registered:
            self._published = wants
        else:
            self.part()

    async def leave(self, joined: Joined) -> None:
        """Leave; every lease goes. Raises as `Session.do` does."""
        await joined.session.fetch(_LEAVE, joined.id)

    async def _learn(self, session: Session) -> None:
        if names := self._stands.nameless():
            rows = await session.fetch(_IDS, names)
            self._stands.learn({row["name"]: row["id"] for row in rows})

    async def read_familiar(self, joined: Joined) -> None:
        """Find out which leases may be taken already; raises as `Session.do` does."""
        if self.familiar is None:
            return
        rows = await joined.session.fetch(_FAMILIAR, sorted(self.wants), joined.id)
        own = frozenset(row["id"] for row in rows if row["node_id"] is not None)
        self._familiar = Familiar(own, frozenset(row["id"] for row in rows) - own)
