"""Moves the checkpoint of one shard, each time together with something else, in one fenced transaction."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from supervisor.database.asyncpg_private import raw_connection
from supervisor.workers.fenced import holding
from supervisor.workers.transaction import BatchTransaction, CheckpointMoved

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.events.checkpoint import Checkpoint
    from supervisor.leases.lease import Lease
    from supervisor.workers.guard import GuardedConnection
    from supervisor.workers.projection import ProjectionWork

    Act = Callable[[GuardedConnection], Awaitable[None]]


class Found(Enum):
    """What a checkpoint that was read again is, compared with the one that was known."""

    AS_KNOWN = "it is the same, or the first"
    OUR_OWN = "our last move was committed, though the answer was lost"
    MOVED = "somebody else has moved it"


class Mover:
    """The one that moves a checkpoint during a run, under its lease.

    Attributes:
        written_s: When it was last moved.
        is_cut: Whether the last move failed and the connection did not survive it.
    """

    __slots__ = ("_aimed_at", "_checkpoint", "_lease", "_work", "is_cut", "written_s")

    def __init__(self, work: ProjectionWork, lease: Lease) -> None:
        self._work = work
        self._lease = lease
        self._checkpoint: Checkpoint | None = None
        # Where it stands if the answer to a COMMIT was lost.
        self._aimed_at: int | None = None
        self.written_s = work.clock.now_s()
        self.is_cut = False

    @property
    def checkpoint(self) -> Checkpoint:
        """Where it stands."""
        assert self._checkpoint is not None  # noqa: S101 - the first thing that is done with a connection
        return self._checkpoint

    def learn(self, found: Checkpoint) -> Found:
        """Note where it stands in the database, and return what that means."""
        former, aimed_at = self._checkpoint, self._aimed_at
        self._checkpoint, self._aimed_at = found, None
        if former is None or found.revision == former.revision:
            return Found.AS_KNOWN
        is_own = (found.revision, found.position) == (former.revision + 1, aimed_at)
        return Found.OUR_OWN if is_own else Found.MOVED

    async def move(self, lent: Any, position: int, act: Act | None = None, *, count: int = 0) -> None:
        """Do something and move the checkpoint.

        Args:
            lent: A connection on loan.
            position: Where to.
            act: What to do in the same transaction.
            count: How many events are applied with it.

        Raises:
            LeaseLost: The lease has passed on.
            CheckpointMoved: Somebody else has moved it.
        """
        checkpoint, shard = self.checkpoint, self._work.shard
        lease = holding(self._work.tenure, self._lease)
        transaction = BatchTransaction(lent)
        try:
            tx = await transaction.begin(lease)
            if act is not None:
                await act(tx)
            transaction.take_back()
            self._aimed_at = position
            await transaction.commit(
                f"SELECT supervisor.leave_batch('{shard.projection}', {shard.number}, {shard.shards}, "
                f"{checkpoint.revision}, {position}, {count})"
            )
        except BaseException as error:
            self.is_cut = not await transaction.abandon(error)
            if isinstance(error, Exception) and (misuse := transaction.why_cut()) is not None:
                raise misuse from error
            raise
        self._checkpoint = checkpoint._replace(position=position, revision=checkpoint.revision + 1)
        self.written_s = self._work.clock.now_s()

    async def bury(self, lent: Any, position: int, sentence: str) -> None:
        """Put an event among the dead letters, and move past it."""
        name = self._work.shard.projection

        async def act(_: GuardedConnection) -> None:
            await raw_connection(lent).execute("SELECT supervisor.bury($1, $2, $3)", name, position, sentence)

        await self.move(lent, position, act)

    async def note(self, lent: Any, position: int, sentence: str) -> None:
        """Note the event at which the shard stops; the checkpoint stays where it is."""
        transaction = BatchTransaction(lent)
        try:
            await transaction.begin(holding(self._work.tenure, self._lease))
            is_noted = await raw_connection(lent).fetchval(
                "SELECT supervisor.note_poison($1, $2, $3, $4, $5, $6)",
                *self._work.shard, self.checkpoint.revision, position, sentence,
            )  # fmt: skip
            transaction.take_back()
            await transaction.commit()
        except BaseException as error:
            await transaction.abandon(error)
            raise
        if not is_noted:
            raise CheckpointMoved("the checkpoint was moved from outside")
