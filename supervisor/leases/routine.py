"""What a node does, again and again: it looks, has it decided (`judgement.py`), and has that carried out.

One statement after the other on the node's session, so that between a look and what follows from it nothing changes
but what others do; only the acquisitions go on beside it, on the pool.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from supervisor.database.session import SessionEnded
from supervisor.errors import ConfigError
from supervisor.leases.judgement import Judgement
from supervisor.leases.listening import Asking, requests_for
from supervisor.leases.look import SNAPSHOT_SQL, look_of
from supervisor.leases.plan import SETTLE_S, missing
from supervisor.leases.pooling import reject_transaction_pooling
from supervisor.leases.stand import LeaseEvent
from supervisor.leases.trust import CALM_LOOK_S, EAGER_LOOK_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.custody import Custody
    from supervisor.leases.joining import Joined
    from supervisor.leases.listening import Listening
    from supervisor.leases.look import ClusterSnapshot
    from supervisor.leases.membership import Membership
    from supervisor.leases.roster import Roster

_NOTIFY = "SELECT pg_catalog.pg_notify('supervisor_lease', p) FROM unnest($1::text[]) AS p"
# Many notifications at once are one look.
_BETWEEN_TURNS_S = 0.01
_AFTER_FAILURE_S = 1.0
# One notification wakes every node; they need not look in step ever after.
_JITTER = 0.15


class Routine:
    """The turns of a node.

    Attributes:
        trouble: Why a turn failed; None: it did not.
    """

    def __init__(
        self,
        *,
        custody: Custody,
        membership: Membership,
        roster: Roster,
        listening: Listening,
        on_look: Callable[[ClusterSnapshot], object],
        clock: Clock,
        rng: Random,
    ) -> None:
        self.trouble: str | None = None
        self._custody = custody
        self._membership = membership
        self._roster = roster
        self._listening = listening
        self._on_look = on_look
        self._clock = clock
        self._rng = rng
        self._asking = Asking(clock=clock)
        self._judgement = Judgement(clock=clock)
        self._looked_s: float | None = None
        self._eager_s = EAGER_LOOK_S
        self._not_before_s = float("-inf")
        self._withdrawing: asyncio.Future[None] | None = None
        self._leaving: asyncio.Future[None] | None = None

    def withdrawing(self) -> asyncio.Future[None]:
        """Return what is done once the others know what this node wants, that is: nothing more."""
        if self._withdrawing is None:
            self._withdrawing = asyncio.get_running_loop().create_future()
        return self._withdrawing

    def leaving(self) -> asyncio.Future[None]:
        """Return what is done once everything is given back that can be; there are no turns after that."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_future()
        return self._leaving

    async def pause(self) -> None:
        """Leave a little time between turns, however often the node is called."""
        await self._clock.sleep(_BETWEEN_TURNS_S)

    def rest_s(self) -> float:
        """Return for how long there is nothing to do if nothing happens."""
        now_s = self._clock.now_s()
        joined = self._membership.joined
        if self._not_before_s > now_s:
            return self._not_before_s - now_s
        if joined is None or self._looked_s is None:
            return EAGER_LOOK_S
        is_eager = not self._membership.is_withdrawn and any(self._custody.stands.waiting())
        due_s = self._looked_s + (self._eager_s if is_eager else CALM_LOOK_S)
        if is_eager and self._membership.familiar is not None:
            due_s = min(due_s, joined.at_s + SETTLE_S)
        return max(0.0, due_s - now_s)

    async def turn(self, session: Session | None) -> None:
        """Do what there is to do on the session of the moment."""
        has_left = self._leaving is not None and self._leaving.done()
        if session is None or has_left or self._clock.now_s() < self._not_before_s:
            return
        try:
            joined = self._membership.joined
            if joined is None or joined.session is not session:
                joined = await self.join(session)
            if joined is not None:
                await self._attend(joined)
            self.trouble = None
        except SessionEnded:
            return  # the gate makes another one, and wakes this loop
        except (asyncpg.PostgresError, ConfigError) as error:
            self.trouble = f"it cannot do what a node does: {error}"
            self._not_before_s = self._clock.now_s() + _AFTER_FAILURE_S

    async def join(self, session: Session) -> Joined | None:
        """Make a session this node's; None: something has to end first that still runs under the former one.

        Raises:
            ConfigError: It is none: a proxy pools transactions.
            SessionEnded: It has ended.
            asyncpg.PostgresError: The server refused something.
        """
        is_first = self._looked_s is None
        await reject_transaction_pooling(session, is_thorough=is_first)
        joined = await self._membership.join(session)
        if joined is None:
            return None
        self._roster.forget()
        self._judgement.forget()
        await self._listening.tune(joined)
        return joined

    async def _attend(self, joined: Joined) -> None:
        await self._custody.give_back(joined)
        if self._leaving is not None:
            await self._go(joined, self._leaving)
            return
        await self._listening.tune(joined)
        await self._membership.publish(joined)
        if self._withdrawing is not None and not self._withdrawing.done():
            self._withdrawing.set_result(None)
        look = await self._see(joined)
        if look is None:
            return
        await self._roster.refresh(joined, look)
        await self._membership.read_familiar(joined)
        await self._follow(joined, look)

    async def _see(self, joined: Joined) -> ClusterSnapshot | None:
        """Look; None: what is seen is not this node's session."""
        sent_s = self._clock.now_s()
        [row] = await joined.session.fetch(SNAPSHOT_SQL, joined.id)
        look = look_of(row, sent_s)
        if look.is_standby:
            joined.session.monitor.request_check()  # it knows whether that is what the connection string asks for
        if look.backend != joined.backend.pid:
            joined.session.invalidate("another server process answers than the one that this session began with")
            self._custody.end_session(joined.session, "another server process answers on its session")
            return None
        self._looked_s = sent_s
        stands = self._custody.stands
        lost = missing(joined.id, look, stands.states())
        self._custody.lose(stands.of(lost), "its session does not hold the lock any more")
        self._eager_s = EAGER_LOOK_S * (1 - _JITTER * self._rng.random())
        self._on_look(look)
        if not look.is_registered:
            self._membership.part()
            # At once, but not in a hot loop where somebody deletes it again and again.
            self._not_before_s = joined.at_s + _AFTER_FAILURE_S
            return None
        return look

    async def _follow(self, joined: Joined, look: ClusterSnapshot) -> None:
        """Carry out what follows from a look."""
        custody, membership, stands = self._custody, self._membership, self._custody.stands
        plan = self._judgement.judge(
            me=joined.id, look=look, custody=custody, membership=membership, peers=self._roster.peers,
            requests=self._listening.take_requests(),
        )  # fmt: skip
        stands.happens(plan.recalls, LeaseEvent.REVOKE)
        await custody.give_back(joined, plan.strays)
        if plan.tries:
            await custody.acquire(joined, plan.tries)
        if self._asking.is_due(plan.asks):
            await joined.session.fetch(_NOTIFY, list(requests_for(plan.asks, joined.id)))
        waiting = [] if membership.is_withdrawn else stands.waiting()
        await self._roster.find_holders(joined.session, look, waiting)
        self._roster.tell_waiting(waiting)

    async def _go(self, joined: Joined, leaving: asyncio.Future[None]) -> None:
        try:
            if not self._custody.stands.occupied():
                await self._membership.leave(joined)
                await self._listening.silence(joined)
        finally:
            if not leaving.done():
                leaving.set_result(None)
