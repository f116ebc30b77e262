"""This daemon as a node among others: what the rest of the daemon sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from supervisor.clock import done_within
from supervisor.database.session import SessionHolder
from supervisor.leases.beginning import begin
from supervisor.leases.custody import Custody
from supervisor.leases.joining import identify
from supervisor.leases.listening import Listening
from supervisor.leases.membership import Membership
from supervisor.leases.roster import Roster
from supervisor.leases.routine import Routine
from supervisor.leases.stand import LeaseEvent, LeaseState
from supervisor.leases.trouble import Trouble
from supervisor.leases.trust import IDLE_SESSION_TIMEOUT_S
from supervisor.leases.trustee import Trustee
from supervisor.leases.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.database.session import Session
    from supervisor.leases.look import ClusterSnapshot, Peer
    from supervisor.leases.stand import LocalLease
    from supervisor.leases.trustee import Deadline
    from supervisor.tasks import BackgroundTasks

_WITHDRAW_LIMIT_S = 0.5
_LEAVE_LIMIT_S = 1.0
_TRUST = "leases: trust"


class Node:
    """One daemon among those on a database.

    Attributes:
        identity: Who it is, over all of its sessions.
        on_look: Called with each look.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        clock: Clock,
        rng: Random,
        tasks: BackgroundTasks,
        version: str = "",
        on_outlived: Callable[[str], object] | None = None,
        idle_limit_s: float = IDLE_SESSION_TIMEOUT_S,
    ) -> None:
        """Make a node that has not joined yet.

        Args:
            database: Where the others are.
            name: The daemon's.
            clock: Time.
            rng: Chance, for jitter.
            tasks: The daemon's.
            version: The daemon's, for people.
            on_outlived: Called with the name of a lost lease under which something still runs after its grace.
            idle_limit_s: After how much silence the server ends the session.
        """
        self.identity = identify(name, version, clock=clock)
        self.on_look: list[Callable[[ClusterSnapshot], object]] = []
        self._database = database
        self._clock = clock
        self._tasks = tasks
        self._waker = Waker(clock=clock)
        self._custody = Custody(
            database, self.identity.name, clock=clock, rng=rng, tasks=tasks, on_change=self._changed
        )
        self._stands = self._custody.stands
        self._trustee = Trustee(self._stands, clock=clock, on_distrust=self._distrust, on_outlived=on_outlived)
        self._membership = Membership(self.identity, self._stands, clock=clock, idle_limit_s=idle_limit_s)
        self._roster = Roster(clock=clock)
        self._listening = Listening(self._waker.call)
        self._routine = Routine(
            custody=self._custody, membership=self._membership, roster=self._roster, listening=self._listening,
            on_look=self._looked, clock=clock, rng=rng,
        )  # fmt: skip
        self._told_trouble = Trouble(clock=clock)
        self._residence: SessionHolder | None = None

    # For the daemon

    async def begin(self) -> None:
        """Join the others, before any worker starts; an outage meanwhile is waited out.

        Raises:
            ConfigError: A proxy between here and the server pools transactions.
            DatabaseAccessDenied: A privilege is missing, or the server is read-only.
            SchemaIncompatible: The SQL schema is not what it should be.
            ConnectAttemptsExhausted: It did not work, again and again.
        """
        self._residence = SessionHolder(
            self._database, clock=self._clock, on_begin=self._waker.call, on_end=self._session_ended
        )
        await begin(self._database, self._residence, self._routine.join, clock=self._clock)

    async def run(self) -> NoReturn:
        """Stand for leases and hold them, for ever."""
        self._tasks.start(self._trustee.run(), name=_TRUST, critical=True)
        try:
            while True:
                session = self._residence.session if self._residence is not None else None
                await self._routine.turn(session)
                self._told_trouble.see(self.trouble)
                await self._routine.pause()
                await self._waker.wait(self._routine.rest_s())
        finally:
            self._tasks.cancel(_TRUST)

    def stand(self, name: str) -> LocalLease:
        """Return the stand for a lease, always the same one."""
        return self._stands.get(name)

    def subscribe(self, channel: str, heard: Callable[[str], object]) -> None:
        """Call `heard` with the payload of each notification on a channel.

        It is called with an empty one when notifications may have been missed: at the beginning of each session.
        """
        self._listening.subscribe(channel, heard)

    async def withdraw(self) -> None:
        """Take nothing any more, and have the others know it; what is held stays until its workers have ended."""
        self._take_no_more()
        if self._membership.joined is not None:
            await done_within(self._routine.withdrawing(), _WITHDRAW_LIMIT_S, clock=self._clock)

    async def leave(self) -> None:
        """Give back everything under which nothing runs, and leave the others if that is all."""
        self._take_no_more()
        leaving = self._routine.leaving()
        if self._membership.joined is not None:
            await done_within(leaving, _LEAVE_LIMIT_S, clock=self._clock)
        if self._residence is not None and not self._stands.occupied():
            self._database.detach_session(self._residence)
        self._custody.entries.flush()

    def _take_no_more(self) -> None:
        self._membership.is_withdrawn = True
        for stand in self._stands.within(LeaseState.ACQUIRING):
            stand.happens(LeaseEvent.REVOKE)
        self._waker.call()

    def woke(self) -> None:
        """Hear that the process was stopped and goes on: what it holds may have passed on meanwhile."""
        self._trustee.see()

    @property
    def deadline(self) -> Deadline | None:
        """By when nothing may run under its leases any more, for who watches from another thread."""
        return self._trustee.deadline

    # For people

    @property
    def id(self) -> int | None:
        """This node's row; None: it has none now."""
        return self._membership.joined.id if self._membership.joined is not None else None

    @property
    def peers(self) -> Mapping[int, Peer]:
        """The nodes that live, this one included, by their rows."""
        return self._roster.peers

    @property
    def trouble(self) -> str | None:
        """What keeps this node from what a node does; None: nothing."""
        return self._routine.trouble or self._custody.trouble

    def summary(self) -> dict[str, Any]:
        """Return what a status says of the node and its stands, from memory."""
        return {
            "node": self.identity.name,
            "id": self.id,
            "trouble": self.trouble,
            "nodes": [peer.describe() for peer in self.peers.values()],
            "leases": [stand.describe() for stand in self._stands],
        }

    # What happens

    def _changed(self) -> None:
        self._waker.call()
        self._trustee.notice()

    def _looked(self, look: ClusterSnapshot) -> None:
        self._trustee.confirm(look.sent_s)
        for heed in tuple(self.on_look):
            heed(look)

    def _distrust(self, reason: str) -> None:
        self._custody.lose(self._stands.believed(), reason)

    def _session_ended(self, session: Session, reason: str) -> None:
        self._membership.part()
        self._custody.end_session(session, reason)
        self._trustee.hang_up(session)
        self._waker.call()
