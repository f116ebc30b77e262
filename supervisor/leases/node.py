"""This daemon as a node among others: it looks, has it decided (`plan.py`), and has that carried out (`custody.py`).

One loop does it all, one statement after the other on the node's session, so that nothing changes between a look and
what follows from it but what others do; only the acquisitions go on beside it, on the pool.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg

from supervisor.clock import ends_within
from supervisor.database.session import Residence, SessionEnded
from supervisor.errors import ConfigError
from supervisor.leases.beginning import begin
from supervisor.leases.custody import Custody
from supervisor.leases.joining import identify
from supervisor.leases.listening import Asking, Listening, requests_for
from supervisor.leases.look import LOOK, look_of
from supervisor.leases.membership import Membership
from supervisor.leases.plan import NOTHING, SETTLE_S, Plan, Situation, decide
from supervisor.leases.pooling import refuse_transaction_pooling
from supervisor.leases.roster import Roster
from supervisor.leases.stand import Event, State
from supervisor.leases.trust import CALM_LOOK_S, EAGER_LOOK_S, IDLE_SESSION_TIMEOUT_S
from supervisor.leases.trustee import Trustee
from supervisor.leases.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.database.session import Session
    from supervisor.leases.joining import Joined
    from supervisor.leases.look import Look, Peer
    from supervisor.leases.stand import Stand
    from supervisor.tasks import Tasks

_NOTIFY = "SELECT pg_catalog.pg_notify('supervisor_lease', p) FROM unnest($1::text[]) AS p"
# Many notifications at once are one look.
_BETWEEN_TURNS_S = 0.01
_AFTER_FAILURE_S = 1.0
_WITHDRAW_LIMIT_S = 0.5
_LEAVE_LIMIT_S = 1.0


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
        tasks: Tasks,
        on_outlived: Callable[[str], object] | None = None,
        idle_limit_s: float = IDLE_SESSION_TIMEOUT_S,
    ) -> None:
        self.identity = identify(name, clock=clock)
        self.on_look: list[Callable[[Look], object]] = []
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
        self._asking = Asking(clock=clock)
        self._residence: Residence | None = None
        self._look: Look | None = None
        self._memory = NOTHING
        self._plan = Plan()
        self._decided: tuple[Look, object] | None = None
        self._not_before_s = float("-inf")
        self._trouble: str | None = None
        # Once the stop begins: done when the others know, and when everything is given back.
        self._withdrawn: asyncio.Future[None] | None = None
        self._left: asyncio.Future[None] | None = None

    # For the daemon

    async def begin(self) -> None:
        """Join the others, before any worker starts; an outage meanwhile is waited out.

        Raises:
            ConfigError: A proxy between here and the server pools transactions.
            DatabaseRefused: A privilege is missing.
            SchemaUnusable: The SQL schema is not what it should be.
            DatabaseGaveUp: It did not work for long.
        """
        self._residence = Residence(
            self._database, clock=self._clock, on_begin=self._waker.call, on_end=self._session_ended
        )
        await begin(self._database, self._residence, self._join, clock=self._clock)

    async def run(self) -> NoReturn:
        """Stand for leases and hold them, for ever."""
        self._tasks.start(self._trustee.run(), name="leases: trust", is_vital=True)
        while True:
            await self._turn()
            await self._clock.sleep(_BETWEEN_TURNS_S)
            await self._waker.wait(self._rest_s())

    def stand(self, name: str) -> Stand:
        """Return the stand for a lease, always the same one."""
        return self._stands.get(name)

    def subscribe(self, channel: str, heard: Callable[[str], object]) -> None:
        """Call `heard` with the payload of each notification on a channel.

        It is called with an empty one when notifications may have been missed: at the beginning of each session.
        """
        self._listening.subscribe(channel, heard)

    async def withdraw(self) -> None:
        """Take nothing any more, and have the others know it; what is held stays until its workers have ended."""
        if self._withdrawn is None:
            self._withdrawn = asyncio.get_running_loop().create_future()
            self._take_no_more()
        if self._membership.joined is not None:
            await ends_within(self._withdrawn, _WITHDRAW_LIMIT_S, clock=self._clock)

    async def leave(self) -> None:
        """Give back everything under which nothing runs, and leave the others."""
        if self._left is None:
            self._left = asyncio.get_running_loop().create_future()
            self._take_no_more()
        if self._membership.joined is not None:
            await ends_within(self._left, _LEAVE_LIMIT_S, clock=self._clock)
        self._custody.entries.flush()

    def _take_no_more(self) -> None:
        self._membership.is_withdrawn = True
        for stand in self._stands.within(State.ACQUIRING):
            stand.happens(Event.RECALL)
        self._waker.call()

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
        return self._trouble or self._custody.trouble

    def summary(self) -> dict[str, Any]:
        """Return what a status says of the node and its stands, from memory."""
        return {
            "node": self.identity.name,
            "id": self.id,
            "trouble": self.trouble,
            "nodes": [peer.describe() for peer in self.peers.values()],
            "leases": [stand.describe() for stand in self._stands],
        }

    # The loop

    def _rest_s(self) -> float:
        """Return how long there is nothing to do if nothing happens."""
        now_s = self._clock.now_s()
        if self._not_before_s > now_s:
            return self._not_before_s - now_s
        if self._membership.joined is None or self._look is None:
            return EAGER_LOOK_S
        is_eager = not self._membership.is_withdrawn and any(self._stands.waiting())
        due_s = self._look.sent_s + (EAGER_LOOK_S if is_eager else CALM_LOOK_S)
        if is_eager and self._membership.familiar is not None:
            due_s = min(due_s, self._membership.joined.at_s + SETTLE_S)
        return max(0.0, due_s - now_s)

    async def _turn(self) -> None:
        session = self._residence.session if self._residence is not None else None
        has_left = self._left is not None and self._left.done()
        if session is None or has_left or self._clock.now_s() < self._not_before_s:
            return
        try:
            joined = self._membership.joined
            if joined is None or joined.session is not session:
                joined = await self._join(session)
            await self._attend(joined)
            self._trouble = None
        except SessionEnded:
            return  # the gate makes another one, and wakes this loop
        except (asyncpg.PostgresError, ConfigError) as error:
            self._trouble = f"it cannot do what a node does: {error}"
            self._not_before_s = self._clock.now_s() + _AFTER_FAILURE_S

    async def _join(self, session: Session) -> Joined:
        await refuse_transaction_pooling(session, is_thorough=self._look is None)
        joined = await self._membership.join(session)
        self._roster.forget()
        self._memory, self._decided = NOTHING, None
        await self._listening.tune(joined)
        return joined

    async def _attend(self, joined: Joined) -> None:
        await self._custody.give_back(joined)
        if self._left is not None:
            await self._go(joined, self._left)
            return
        await self._listening.tune(joined)
        await self._membership.publish(joined)
        if self._withdrawn is not None and not self._withdrawn.done():
            self._withdrawn.set_result(None)
        look = await self._see(joined)
        if look is None:
            return
        await self._roster.refresh(joined, look)
        await self._membership.read_familiar(joined)
        plan = self._decide(joined, look)
        self._custody.lose(self._stands.of(plan.lost), "its session does not hold the lock any more")
        self._stands.happens(plan.recalls, Event.RECALL)
        await self._custody.give_back(joined, plan.strays)
        if plan.tries:
            await self._custody.acquire(joined, plan.tries)
        if self._asking.is_due(plan.asks):
            await joined.session.ask(_NOTIFY, list(requests_for(plan.asks, joined.id)))
        waiting = [] if self._membership.is_withdrawn else self._stands.waiting()
        await self._roster.find_holders(joined.session, look, waiting)
        self._roster.tell_waiting(waiting)

    async def _see(self, joined: Joined) -> Look | None:
        """Look; None: what is seen is not this node's session."""
        sent_s = self._clock.now_s()
        [row] = await joined.session.ask(LOOK, joined.id)
        look = look_of(row, sent_s)
        if look.is_standby:
            self._database.gate.suspect()  # it knows whether that is what the connection string asks for
        if look.backend != joined.backend.pid:
            joined.session.give_up("another server process answers than the one that this session began with")
            self._custody.end_session(joined.session, "another server process answers on its session")
            return None
        self._look = look
        self._trustee.confirmed_s = sent_s
        if not look.is_registered:
            self._membership.part()
            self._waker.call()
            return None
        for heed in tuple(self.on_look):
            heed(look)
        return look

    def _decide(self, joined: Joined, look: Look) -> Plan:
        """Decide, unless nothing has changed since the last time and nothing is due."""
        membership, requests = self._membership, self._listening.take_requests()
        may_take = not membership.is_withdrawn and self._clock.now_s() >= self._custody.take_after_s
        basis = (self._stands.version, membership.familiar, may_take)
        is_same = self._decided is not None and self._decided[1] == basis and look.shows_the_same(self._decided[0])
        if is_same and not requests and not self._memory.idle:
            return Plan(asks=self._plan.asks)
        situation = Situation(
            me=joined.id,
            now_s=self._clock.now_s(),
            look=look,
            wants={peer.id: peer.wants for peer in self.peers.values()} | {joined.id: membership.wants},
            states=self._stands.states(),
            requests=requests,
            familiar=membership.familiar,
            may_take=may_take,
        )
        self._plan, self._memory = decide(situation, self._memory)
        self._decided = (look, basis)
        return self._plan

    async def _go(self, joined: Joined, left: asyncio.Future[None]) -> None:
        if all(stand.state is State.ABSENT for stand in self._stands):
            await self._membership.leave(joined)
        if not left.done():
            left.set_result(None)

    def _changed(self) -> None:
        self._waker.call()
        self._trustee.notice()

    def _distrust(self, reason: str) -> None:
        self._custody.lose(self._stands.believed(), reason)

    def _session_ended(self, session: Session, reason: str) -> None:
        self._membership.part()
        self._custody.end_session(session, reason)
        self._waker.call()
