"""When to decide anew, and from what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.leases.plan import NOTHING, Plan, Situation, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.clock import Clock
    from supervisor.leases.custody import Custody
    from supervisor.leases.look import ClusterSnapshot, Peer
    from supervisor.leases.membership import Membership


class Judgement:
    """The last decision, and what it was based on: a thousand leases are not dealt out twice a second for nothing."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Decide anew whatever happens."""
        self._memory = NOTHING
        self._plan = Plan()
        self._basis: object = None
        self._look: ClusterSnapshot | None = None

    def judge(
        self,
        *,
        me: int,
        look: ClusterSnapshot,
        custody: Custody,
        membership: Membership,
        peers: Mapping[int, Peer],
        requests: Mapping[int, int],
    ) -> Plan:
        """Return what to do after a look.

        Args:
            me: This node.
            look: What was seen.
            custody: This node's stands.
            membership: This node's wishes.
            peers: The nodes that live.
            requests: Which node asked for which lease since the last time.
        """
        now_s = self._clock.now_s()
        may_take = not membership.is_withdrawn and now_s >= custody.take_after_s
        basis = (custody.stands.version, membership.familiar, may_take)
        is_due = bool(requests or self._memory.idle)
        if not is_due and basis == self._basis and look.shows_the_same(self._look):
            return Plan(asks=self._plan.asks)
        situation = Situation(
            me=me,
            now_s=now_s,
            look=look,
            wants={peer.id: peer.wants for peer in peers.values()} | {me: membership.wants},
            states=custody.stands.states(),
            requests=requests,
            familiar=membership.familiar,
            may_take=may_take,
        )
        self._plan, self._memory = decide(situation, self._memory)
        self._basis, self._look = basis, look
        return self._plan
