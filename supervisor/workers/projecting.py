"""One run of a projection's shard: reads, has the handler apply, moves the checkpoint, waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.config.model import Projection
from supervisor.database.error_class import may_be_connection_loss
from supervisor.errors import LeaseLost, ProjectionHalted, ShardingConflict, SupervisorError
from supervisor.events.checkpoint import NoCheckpoint, load, look
from supervisor.events.reader import Reader
from supervisor.journal import log_event
from supervisor.supervision.instance_log import sentence_of
from supervisor.workers.call import call
from supervisor.workers.escape import HandlerEscaped, is_handlers_own
from supervisor.workers.falling_behind import FallingBehind
from supervisor.workers.layout import displaced
from supervisor.workers.mover import Found, Mover
from supervisor.workers.setback import Again, Decision, GiveUp, Halve, Poison, Tries, cause_of, grown, judge
from supervisor.workers.transaction import CheckpointMoved
from supervisor.workers.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.events.event import Event
    from supervisor.leases.lease import Lease
    from supervisor.stop_signal import StopSignal
    from supervisor.workers.guard import GuardedConnection
    from supervisor.workers.projection import ProjectionWork

# So long a connection is kept while there is more to do; then others have their turn.
_TURN_S = 0.25
# A transaction in flight holds the horizon back. Its commit notifies, its rollback does not.
_LOOK_AGAIN_S = 0.005
_LOOK_AGAIN_MOST_S = 1.0
# Events of other streams move the position in memory; it is written when so many positions or seconds have passed.
_UNWRITTEN = 10_000
_UNWRITTEN_S = 60.0


class _NotLaidOut(SupervisorError):
    """There is no checkpoint for the shard: it is laid out over another number of them, or a person deleted it."""

    def __init__(self, shards: int) -> None:
        super().__init__(shards)
        self.shards = shards


class Projecting:
    """A run of one shard, under one lease.

    Attributes:
        behind: How far it is behind.
    """

    def __init__(self, work: ProjectionWork, stop: StopSignal, lease: Lease) -> None:
        kind = work.spec.kind
        assert isinstance(kind, Projection)  # noqa: S101 - nobody else is hired like this
        self._kind = kind
        self._work = work
        self._clock = work.clock
        self._stop = stop
        self._db = work.outages.pool_for(stop)
        self._reader = Reader(work.shard, kind.streams, batch=kind.batch)
        self.behind = FallingBehind(work, self._reader, warning_s=kind.lag_warning_s)
        self._watch = Watch(
            work.spec, work.shard.label, self.behind.look, clock=work.clock, outages=work.outages
        )  # fmt: skip
        self._mover = Mover(work, lease)
        self._has_insisted = False
        self._must_load = self._must_look = True
        self._seen_rings = self._seen_head = 0
        self._held_looks: int | None = None
        self._size = kind.batch
        self._tries = Tries()
        self._tried: Sequence[Event] = ()
        self._condemned: tuple[Event, Exception] | None = None

    async def live(self) -> None:
        """Apply events until the worker is to stop.

        Raises:
            LeaseLost: The lease has passed on.
            ProjectionHalted: It stands still until a person acts.
            ShardingConflict: It is laid out as a later configuration says.
        """
        watching = asyncio.ensure_future(self._watch.run())  # noqa: TID251 - owned and ended right here
        try:
            if await self._work.layouts.ensure(self._work, self._db, rest=self._rest):
                while not self._stop.is_set:
                    await self._step()
        finally:
            watching.cancel()

    async def _step(self) -> None:
        try:
            is_caught_up = await self._work_off()
        except CheckpointMoved:
            self._must_load = True
        except _NotLaidOut as missing:
            await self._lay_out_again(missing.shards)
        except (LeaseLost, ProjectionHalted, ShardingConflict):
            raise
        except Exception as error:  # noqa: BLE001 - the handler's or the server's: what follows is decided in one place
            await self._set_back(error)
        else:
            if is_caught_up:
                self._tries = Tries()
                await self._wait()

    async def _work_off(self) -> bool:
        """Apply what there is, for a while; true: there is no more."""
        reader, bell = self._reader, self._work.bell
        async with self._db.acquire() as lent:
            until_s = self._clock.now_s() + _TURN_S
            try:
                if self._must_load:
                    await self._load(lent)
                if self._condemned is not None:
                    await self._execute(lent, *self._condemned)
                while not self._stop.is_set and self._clock.now_s() < until_s:
                    if reader.pending:
                        await self._apply(lent)
                    elif reader.read_upto < reader.horizon:
                        await reader.read(lent)
                    elif self._must_look or self._seen_rings != bell.rings:
                        await self._look(lent)
                    else:
                        await self._write_down(lent)
                        return True
            except asyncio.CancelledError:
                # There may be a lease to give back: not a moment for a peer that may be gone.
                lent.terminate()
                raise
        return False

    # Reading

    async def _load(self, lent: Any) -> None:
        work = self._work
        found = await load(lent, work.shard)
        if isinstance(found, NoCheckpoint):
            raise _NotLaidOut(found.shards)
        match self._mover.learn(found):
            case Found.AS_KNOWN:
                pass
            case Found.OUR_OWN:
                self._condemned = None
            case Found.MOVED:
                log_event("projection.moved", worker=work.spec.name, shard=work.shard.label, position=found.position)
                self._condemned = None
                self._tries, self._size = Tries(), self._kind.batch
        self._has_insisted = False
        self._reader.begin(found)
        self._must_load, self._must_look = False, True

    async def _lay_out_again(self, found: int) -> None:
        """Have it laid out anew if what is missing has been deleted: by a person, or with the database."""
        work = self._work
        if found not in (0, work.shard.shards):
            raise displaced(work, found)
        if self._has_insisted:
            raise SupervisorError(f"the checkpoint of {work.spec.name} is gone as soon as it has been made")
        self._has_insisted, self._condemned = True, None
        log_event("projection.begun_anew", worker=work.spec.name, shard=work.shard.label)
        await work.layouts.ensure(work, self._db, rest=self._rest, is_missing=True)

    async def _look(self, lent: Any) -> None:
        bell = self._work.bell
        rings, head = bell.rings, bell.head
        sight = await look(lent, self._work.shard)
        if sight.revision != self._mover.checkpoint.revision:
            raise CheckpointMoved("the checkpoint was moved from outside")
        if sight.horizon > self._reader.horizon or not sight.is_held_back:
            self._held_looks = None
        if sight.is_held_back:
            self._held_looks = 0 if self._held_looks is None else self._held_looks + 1
            self._watch.rouse()
        self._reader.horizon, self._reader.may_be_large = sight.horizon, sight.may_be_large
        self._seen_rings, self._seen_head = rings, max(head, sight.head)
        self._must_look = False
        self.behind.saw(sight)

    async def _wait(self) -> None:
        """Wait until there may be more."""
        looks = self._held_looks
        limit_s = None if looks is None else min(_LOOK_AGAIN_MOST_S, _LOOK_AGAIN_S * 2 ** min(looks, 20))
        await self._work.bell.wait(
            self._seen_rings, self._seen_head, stop=self._stop, clock=self._clock, limit_s=limit_s
        )
        self._must_look = True

    async def _rest(self, delay_s: float) -> bool:
        """Wait so long; false: the worker is to stop."""
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def notice() -> None:
            if self._stop.is_set and not stopped.done():
                stopped.set_result(None)

        self._stop.add_callback(notice)
        try:
            notice()
            return not await done_within(stopped, delay_s, clock=self._clock)
        finally:
            self._stop.remove_callback(notice)

    # Applying

    async def _apply(self, lent: Any) -> None:
        events, position = self._reader.peek(self._size)

        async def have_applied(tx: GuardedConnection) -> None:
            self._tried = events
            context = self._work.context(self._stop)
            context.lend(tx)
            try:
                await self._watch.over(call(self._work.function, context, events))
            except BaseException as error:
                if is_handlers_own(error):
                    raise HandlerEscaped(error) from error
                raise
            finally:
                context.lend(None)

        await self._mover.move(lent, position, have_applied, count=len(events))
        self._tried = ()
        self._reader.advance(len(events))
        self._size, self._tries = grown(self._size, self._kind.batch), Tries()

    async def _write_down(self, lent: Any) -> None:
        """Write the position down if it has run far ahead of the one in the database."""
        ahead = self._reader.read_upto - self._mover.checkpoint.position
        is_old = self._clock.now_s() >= self._mover.written_s + _UNWRITTEN_S
        if ahead >= _UNWRITTEN or (ahead > 0 and is_old):
            await self._mover.move(lent, self._reader.read_upto)

    # When it does not go well

    async def _set_back(self, error: Exception) -> None:
        tried, self._tried = self._tried, ()
        is_cut = self._mover.is_cut or (not tried and may_be_connection_loss(error))
        self._mover.is_cut = False
        self._must_load = True
        is_outage = await self._work.outages.is_outage_error(error)
        cause = cause_of(error, is_outage=is_outage, is_cut=is_cut, is_handlers=bool(tried))
        decision, self._tries = judge(cause, self._tries, count=len(tried), sample=self._work.rng.random())
        match decision:
            case GiveUp():
                raise error
            case Poison():
                self._condemned = (tried[0], error)
            case Halve(size):
                self._size = size
                self._tell_setback(error, tried, decision)
            case Again(delay_s):
                self._tell_setback(error, tried, decision)
                await self._rest(delay_s)

    def _tell_setback(self, error: Exception, tried: Sequence[Event], decision: Decision) -> None:
        fields: dict[str, Any] = {"events": len(tried), "position": tried[0].position} if tried else {}
        if isinstance(decision, Again):
            fields["delay_s"] = round(decision.delay_s, 3)
        work = self._work
        log_event("projection.set_back", exc=error, worker=work.spec.name, shard=work.shard.label, **fields)

    async def _execute(self, lent: Any, event: Event, error: Exception) -> None:
        """Do with an event that cannot be applied as the configuration says."""
        sentence = sentence_of(error)
        if self._kind.poison == "dead-letter":
            await self._mover.bury(lent, event.position, sentence)
            self._tell_poison(event, error, "It went to the dead letters")
            self._condemned = None
            self._reader.begin(self._mover.checkpoint)
            self._must_look = True
            self._size, self._tries = grown(self._size, self._kind.batch), Tries()
        else:
            await self._mover.note(lent, event.position, sentence)
            self._tell_poison(event, error, "The projection stands still until it is skipped, reset or restarted")
            raise ProjectionHalted(
                f"event {event.position} ({event.type} of {event.stream}) cannot be applied: {sentence}"
            )

    def _tell_poison(self, event: Event, error: Exception, consequence: str) -> None:
        log_event(
            "projection.poison", exc=error, worker=self._work.spec.name, shard=self._work.shard.label,
            position=event.position, stream=event.stream, event_type=event.type, consequence=consequence,
        )  # fmt: skip
