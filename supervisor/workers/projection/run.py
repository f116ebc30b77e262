"""One run of a shard: reads events, has the handler apply them, moves the checkpoint, waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from supervisor.database.error_class import may_be_connection_loss
from supervisor.errors import LeaseLost, ProjectionHalted, ShardingConflict, SupervisorError
from supervisor.events.reader import MissingCheckpoint, Reader, fetch_log_position, load_checkpoint
from supervisor.journal import log_event
from supervisor.journal.exceptions import one_line
from supervisor.wakeup import Wakeup
from supervisor.workers.context import Context
from supervisor.workers.function_work import call_handler
from supervisor.workers.projection.checkpoint_writer import CheckpointMoved, CheckpointWriter, Reconciled
from supervisor.workers.projection.failure_policy import (
    Attempts,
    Decision,
    FailRun,
    MarkPoison,
    RetryAfter,
    RetrySmaller,
    classify,
    decide,
    next_batch_size,
)
from supervisor.workers.projection.lag_monitor import LagMonitor
from supervisor.workers.projection.sharding import sharding_conflict
from supervisor.workers.projection.stall_watch import StallWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.events.event import Event
    from supervisor.events.lag import Lag
    from supervisor.leases.lease import Lease
    from supervisor.stop_signal import StopSignal
    from supervisor.workers.projection.guarded_connection import GuardedConnection
    from supervisor.workers.projection.shard_context import ShardContext
    from supervisor.workers.projection.sharding import ShardingClaims

# How long a connection is kept while there is more to do; then other workers get it.
_MAX_HOLD_S = 0.25
# An open transaction that has appended holds the horizon back. Its commit notifies, its rollback does not.
_FIRST_RECHECK_S = 0.005
_MAX_RECHECK_S = 1.0
# Events of other shards and streams only move the position in memory; it is written after so many positions or seconds.
_MAX_UNWRITTEN = 10_000
_MAX_UNWRITTEN_S = 60.0
_HALTED = "The projection is halted at this event until the event is skipped, or the projection is reset or restarted"


class HandlerBaseException(SupervisorError):
    """The handler raised what would end more than the handler: a cancellation of its own, an exit, and similar."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the handler raised {one_line(error)}")


class _CheckpointMissing(SupervisorError):
    """The shard has no checkpoint: the projection has another number of shards, or somebody deleted it."""

    def __init__(self, shards: int) -> None:
        super().__init__(shards)
        self.shards = shards


class ProjectionRun:
    """A run of one shard, under one lease."""

    def __init__(self, context: ShardContext, claims: ShardingClaims, stop: StopSignal, lease: Lease) -> None:
        self._context = context
        self._claims = claims
        self._clock = context.clock
        self._stop = stop
        self._db = context.database.pool_for(stop)
        self._reader = Reader(context.shard, context.kind.streams, batch=context.kind.batch)
        self._lag = LagMonitor(context, self._reader)
        self._watch = StallWatch(context, self._lag.check)
        self._checkpoint = CheckpointWriter(context, lease)
        self._has_recreated = False
        self._must_load = self._must_refresh = True
        # The append signal's state at the last refresh.
        self._seen_count = self._seen_head = 0
        self._held_back_checks: int | None = None
        self._size = context.kind.batch
        self._attempts = Attempts()
        self._in_flight: Sequence[Event] = ()
        self._poison: tuple[Event, Exception] | None = None

    @property
    def lag(self) -> Lag:
        """How far behind the shard is."""
        return self._lag.lag

    async def run(self) -> None:
        """Apply events until the worker is to stop.

        Raises:
            LeaseLost: The lease was lost.
            ProjectionHalted: The projection halts until an operator acts.
            ShardingConflict: A newer configuration has another number of shards.
        """
        watching = asyncio.ensure_future(self._watch.watch())  # noqa: TID251 - owned and ended right here
        try:
            if await self._claims.ensure(self._context, self._db, sleep=self._sleep_until_stop):
                while not self._stop.is_set:
                    await self._step()
        finally:
            watching.cancel()

    async def _step(self) -> None:
        try:
            is_caught_up = await self._apply_available()
        except CheckpointMoved:
            self._must_load = True
        except _CheckpointMissing as missing:
            await self._recreate(missing.shards)
        except (LeaseLost, ProjectionHalted, ShardingConflict):
            raise
        except Exception as error:  # noqa: BLE001 - the handler's or the server's: one place decides what follows
            await self._handle_failure(error)
        else:
            if is_caught_up:
                self._attempts = Attempts()
                await self._wait()

    async def _apply_available(self) -> bool:
        """Apply the events that there are, for a while; true: there are no more."""
        reader, signal = self._reader, self._context.append_signal
        async with self._db.acquire() as pooled:
            until_s = self._clock.now_s() + _MAX_HOLD_S
            try:
                if self._must_load:
                    await self._load(pooled)
                if self._poison is not None:
                    await self._handle_poison(pooled, *self._poison)
                while not self._stop.is_set and self._clock.now_s() < until_s:
                    if reader.pending:
                        await self._apply_batch(pooled)
                    elif reader.read_position < reader.horizon:
                        await reader.read(pooled)
                    elif self._must_refresh or self._seen_count != signal.count:
                        await self._refresh_horizon(pooled)
                    else:
                        await self._flush_position(pooled)
                        return True
            except asyncio.CancelledError:
                # A cancelled run may have to release its lease: it must not wait for a server that may be gone.
                pooled.terminate()
                raise
        return False

    async def _load(self, pooled: Any) -> None:
        found = await load_checkpoint(pooled, self._context.shard)
        if isinstance(found, MissingCheckpoint):
            raise _CheckpointMissing(found.shards)
        match self._checkpoint.reconcile(found):
            case Reconciled.AS_KNOWN:
                pass
            case Reconciled.COMMITTED:
                self._poison = None
            case Reconciled.MOVED:
                log_event("projection.moved", **self._context.log_fields, position=found.position)
                self._poison = None
                self._attempts, self._size = Attempts(), self._context.kind.batch
        self._has_recreated = False
        self._reader.seek(found)
        self._must_load, self._must_refresh = False, True

    async def _recreate(self, found: int) -> None:
        """Create the checkpoint again if somebody deleted it, alone or with the database."""
        context = self._context
        if found not in (0, context.shard.shards):
            raise sharding_conflict(context, found)
        if self._has_recreated:
            raise SupervisorError(f"the checkpoint of {context.spec.name} is gone as soon as it has been made")
        self._has_recreated, self._poison = True, None
        log_event("projection.restarted_from_zero", **context.log_fields)
        await self._claims.ensure(context, self._db, sleep=self._sleep_until_stop, is_missing=True)

    async def _refresh_horizon(self, pooled: Any) -> None:
        signal = self._context.append_signal
        count, head = signal.count, signal.head
        log = await fetch_log_position(pooled, self._context.shard)
        if log.revision != self._checkpoint.checkpoint.revision:
            raise CheckpointMoved("the checkpoint was moved from outside")
        if log.horizon > self._reader.horizon or not log.has_open_writers:
            self._held_back_checks = None
        if log.has_open_writers:
            self._held_back_checks = 0 if self._held_back_checks is None else self._held_back_checks + 1
            self._watch.wake()
        self._reader.horizon, self._reader.may_be_large = log.horizon, log.may_be_large
        self._seen_count, self._seen_head = count, max(head, log.head)
        self._must_refresh = False
        self._lag.record(log)

    async def _wait(self) -> None:
        """Wait until there may be more."""
        checks = self._held_back_checks
        timeout_s = None if checks is None else min(_MAX_RECHECK_S, _FIRST_RECHECK_S * 2 ** min(checks, 20))
        await self._context.append_signal.wait(
            self._seen_count, self._seen_head, stop=self._stop, clock=self._clock, timeout_s=timeout_s
        )
        self._must_refresh = True

    async def _sleep_until_stop(self, delay_s: float) -> bool:
        """Wait so long; false: the worker is to stop."""
        wakeup, deadline_s = Wakeup(clock=self._clock), self._clock.now_s() + delay_s
        self._stop.add_callback(wakeup.wake)
        try:
            while not self._stop.is_set and await wakeup.wait(deadline_s):
                pass
        finally:
            self._stop.remove_callback(wakeup.wake)
        return not self._stop.is_set

    async def _apply_batch(self, pooled: Any) -> None:
        events, position = self._reader.peek(self._size)
        async with self._checkpoint.advance(pooled, to=position, count=len(events)) as tx:
            await self._call_handler(tx, events)
        self._in_flight = ()
        self._reader.advance(len(events))
        self._grow_batch()

    async def _call_handler(self, tx: GuardedConnection, events: Sequence[Event]) -> None:
        self._in_flight = events
        shard = self._context
        # A new one for each call: it must not show the transaction of the next batch.
        context = Context(
            shard.spec, stop=self._stop, database=shard.database, clock=self._clock, lease_handle=shard.lease_handle
        )  # fmt: skip
        context._set_tx(tx)  # noqa: SLF001 - not for users
        try:
            await self._watch.run(call_handler(shard.handler, context, events))
        except BaseException as error:
            if _raised_by_handler(error):
                raise HandlerBaseException(error) from error
            raise
        finally:
            context._set_tx(None)  # noqa: SLF001 - as above

    async def _flush_position(self, pooled: Any) -> None:
        """Write the position if it is far beyond the one in the database."""
        ahead = self._reader.read_position - self._checkpoint.checkpoint.position
        is_old = self._clock.now_s() >= self._checkpoint.written_s + _MAX_UNWRITTEN_S
        if ahead >= _MAX_UNWRITTEN or (ahead > 0 and is_old):
            async with self._checkpoint.advance(pooled, to=self._reader.read_position):
                pass

    def _grow_batch(self) -> None:
        self._size, self._attempts = next_batch_size(self._size, self._context.kind.batch), Attempts()

    async def _handle_failure(self, error: Exception) -> None:
        events, self._in_flight = self._in_flight, ()
        connection_ended = self._checkpoint.connection_lost or (not events and may_be_connection_loss(error))
        self._checkpoint.connection_lost = False
        self._must_load = True
        is_outage = await self._context.database.is_outage_error(error)
        cause = classify(
            error, is_outage=is_outage, connection_ended=connection_ended, handler_started=bool(events)
        )  # fmt: skip
        decision, self._attempts = decide(
            cause, self._attempts, count=len(events), sample=self._context.rng.random()
        )  # fmt: skip
        match decision:
            case FailRun():
                raise error
            case MarkPoison():
                self._poison = (events[0], error)
            case RetrySmaller(size):
                self._size = size
                self._log_failure(error, events, decision)
            case RetryAfter(delay_s):
                self._log_failure(error, events, decision)
                await self._sleep_until_stop(delay_s)

    def _log_failure(self, error: Exception, events: Sequence[Event], decision: Decision) -> None:
        fields: dict[str, Any] = {"events": len(events), "position": events[0].position} if events else {}
        if isinstance(decision, RetryAfter):
            fields["delay_s"] = round(decision.delay_s, 3)
        log_event("projection.batch_failed", exc=error, **self._context.log_fields, **fields)

    async def _handle_poison(self, pooled: Any, event: Event, error: Exception) -> None:
        """Do with an event that cannot be applied what the configuration says."""
        reason = one_line(error)
        if self._context.kind.poison == "dead-letter":
            await self._checkpoint.dead_letter(pooled, event.position, reason)
            self._log_poison(event, error, "It went to the dead letters")
            self._poison = None
            self._reader.seek(self._checkpoint.checkpoint)
            self._must_refresh = True
            self._grow_batch()
        else:
            await self._checkpoint.record_poison(pooled, event.position, reason)
            self._log_poison(event, error, _HALTED)
            raise ProjectionHalted(
                f"event {event.position} ({event.type} of {event.stream}) cannot be applied: {reason}"
            )

    def _log_poison(self, event: Event, error: Exception, consequence: str) -> None:
        log_event(
            "projection.poison", exc=error, **self._context.log_fields,
            position=event.position, stream=event.stream, event_type=event.type, consequence=consequence,
        )  # fmt: skip


def _raised_by_handler(error: BaseException) -> bool:
    """Whether the handler raised this: it is no `Exception`, but the current task was not cancelled."""
    task = asyncio.current_task()
    return not isinstance(error, Exception) and task is not None and task.cancelling() == 0
