"""Moves the checkpoint of one shard, each time in a fenced transaction that commits the batch with it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.database.asyncpg_private import mark_begun, mark_ended, raw_connection
from supervisor.database.fatal_message import tap
from supervisor.errors import LeaseLost, SupervisorError, TransactionMisused
from supervisor.workers.fenced_transaction import idle_timeout_error, require_held
from supervisor.workers.projection.guarded_connection import GuardedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from supervisor.events.reader import Checkpoint
    from supervisor.leases.lease import Lease
    from supervisor.workers.projection.shard_context import ShardContext

# The fence only waits while a new holder advances the epoch, which takes milliseconds.
_BEGIN_TIMEOUT_S = 10.0
_ROLLBACK_TIMEOUT_S = 5.0
# What the functions of the schema raise; 40001 means the same as the first: the row was changed meanwhile.
_LEASE_LOST = frozenset({"SVL01", "40001"})
_MOVED = "SVM01"
# Back from SET SESSION AUTHORIZATION, then from SET ROLE: without LOCAL they would outlive the transaction, too.
_OWN_ROLE = "RESET SESSION AUTHORIZATION; RESET ROLE"
_ANOTHER_TRANSACTION = "SVT01"
_RESET = "SVT02"
_READ_ONLY = "25006"
_FAILED_TRANSACTION = "25P02"


class CheckpointMoved(SupervisorError):
    """The checkpoint was moved from outside since it was read: the batch is rolled back, and read again."""


class Reconciled(Enum):
    """What a checkpoint that was read again is, compared with the one that was known."""

    AS_KNOWN = "it is the same, or the first"
    COMMITTED = "our last batch was committed, though the answer was lost"
    MOVED = "it was moved from outside"


class CheckpointWriter:
    """Moves the checkpoint during a run, under its lease.

    Attributes:
        written_s: When it was last moved.
        connection_lost: Whether the last attempt failed and ended the connection.
    """

    __slots__ = ("_checkpoint", "_context", "_lease", "_uncertain_position", "connection_lost", "written_s")

    def __init__(self, context: ShardContext, lease: Lease) -> None:
        self._context = context
        self._lease = lease
        self._checkpoint: Checkpoint | None = None
        # The position if the answer to a COMMIT was lost.
        self._uncertain_position: int | None = None
        self.written_s = context.clock.now_s()
        self.connection_lost = False

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint as this run knows it."""
        assert self._checkpoint is not None  # noqa: S101 - it is loaded before anything else
        return self._checkpoint

    def reconcile(self, found: Checkpoint) -> Reconciled:
        """Take the checkpoint that was read from the database, and return what it means."""
        known, uncertain_position = self._checkpoint, self._uncertain_position
        self._checkpoint, self._uncertain_position = found, None
        if known is None or found.revision == known.revision:
            return Reconciled.AS_KNOWN
        is_own = (found.revision, found.position) == (known.revision + 1, uncertain_position)
        return Reconciled.COMMITTED if is_own else Reconciled.MOVED

    @asynccontextmanager
    async def advance(self, pooled: Any, *, to: int, count: int = 0) -> AsyncIterator[GuardedConnection]:
        """Open a fenced transaction that moves the checkpoint at its end, and yield what the handler may use of it.

        An error in the block rolls everything back; after a cancellation the connection is ended instead, which is
        faster.

        Args:
            pooled: A connection of the worker's pool.
            to: The position to move to.
            count: How many events are applied.

        Raises:
            LeaseLost: The lease was lost.
            CheckpointMoved: The checkpoint was moved from outside.
            TransactionMisused: The block did with the transaction what it must not.
        """
        checkpoint, shard = self.checkpoint, self._context.shard
        lease = require_held(self._context.lease_handle, self._lease)
        transaction = _Transaction(pooled)
        try:
            yield await transaction.begin(lease)
            transaction.end_handler_access()
            self._uncertain_position = to
            await transaction.commit(
                f"SELECT supervisor.finish_batch('{shard.projection}', {shard.number}, {shard.shards}, "
                f"{checkpoint.revision}, {to}, {count})"
            )
        except BaseException as error:
            self.connection_lost = not await transaction.rollback(error)
            if isinstance(error, Exception) and (misuse := transaction.idle_timeout_error()) is not None:
                raise misuse from error
            raise
        self._checkpoint = checkpoint._replace(position=to, revision=checkpoint.revision + 1)
        self.written_s = self._context.clock.now_s()

    async def dead_letter(self, pooled: Any, position: int, reason: str) -> None:
        """Put an event among the dead letters, and move past it."""
        name = self._context.shard.projection
        async with self.advance(pooled, to=position):
            connection = raw_connection(pooled)
            await connection.execute("SELECT supervisor.add_dead_letter($1, $2, $3)", name, position, reason)

    async def record_poison(self, pooled: Any, position: int, reason: str) -> None:
        """Record the event at which the shard halts; the checkpoint stays where it is."""
        transaction = _Transaction(pooled)
        try:
            await transaction.begin(require_held(self._context.lease_handle, self._lease))
            is_recorded = await raw_connection(pooled).fetchval(
                "SELECT supervisor.record_poison($1, $2, $3, $4, $5, $6)",
                *self._context.shard, self.checkpoint.revision, position, reason,
            )  # fmt: skip
            transaction.end_handler_access()
            await transaction.commit()
        except BaseException as error:
            await transaction.rollback(error)
            raise
        if not is_recorded:
            raise CheckpointMoved("the checkpoint was moved from outside")


class _Transaction:
    """One transaction on a pooled connection; it costs two round trips beside the handler's own."""

    __slots__ = ("_connection", "_fatal", "_guard")

    def __init__(self, pooled: Any) -> None:
        self._connection = raw_connection(pooled)
        self._fatal = tap(self._connection)
        self._guard: GuardedConnection | None = None

    async def begin(self, lease: Lease) -> GuardedConnection:
        """Begin, and return what the handler may use.

        Raises:
            LeaseLost: The lease was lost.
        """
        fence = f"supervisor.begin_batch({lease.id}, {lease.epoch}, '{lease.incarnation}')"
        try:
            await self._connection.execute(
                f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT {fence}",
                timeout=_BEGIN_TIMEOUT_S,
            )
        except asyncpg.PostgresError as error:
            if error.sqlstate in _LEASE_LOST:
                raise LeaseLost(f"the lease {lease.name} has passed on") from error
            raise
        mark_begun(self._connection)
        self._guard = GuardedConnection(self._connection)
        return self._guard

    def end_handler_access(self) -> None:
        """Close what the handler was given.

        Raises:
            TransactionMisused: The handler has ended the transaction.
        """
        self._close_guard()
        if not self._connection.is_closed() and not self._connection.is_in_transaction():
            raise _ended_by_handler()

    async def commit(self, last: str = "") -> None:
        """Commit after a last statement, in the connection's own role: the handler may have set another one.

        Raises:
            CheckpointMoved: The checkpoint was moved from outside.
            TransactionMisused: A task of the handler still uses the connection, or the transaction is another one.
        """
        try:
            await self._connection.execute(f"{_OWN_ROLE}; {last}; COMMIT")
        except asyncpg.InterfaceError as error:
            if self._connection.is_closed():
                raise
            raise TransactionMisused(
                "a task that the handler has started still uses ctx.tx: nothing of this batch was moved. Await every "
                "such task before the handler returns (an asyncio.TaskGroup does)"
            ) from error
        except asyncpg.PostgresError as error:
            raise _translate(error) from error

    async def rollback(self, error: BaseException) -> bool:
        """Roll back after an error, and return whether the connection is still good."""
        self._close_guard()
        connection = self._connection
        # A cancelled run may have to release its lease, and must not wait for a server that may be gone.
        if isinstance(error, Exception) and not connection.is_closed():
            try:
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK", timeout=_ROLLBACK_TIMEOUT_S)
            except BaseException as failure:
                connection.terminate()
                if not isinstance(failure, Exception):
                    raise
            else:
                return True
        connection.terminate()
        return False

    def idle_timeout_error(self) -> TransactionMisused | None:
        """Return the error that explains it if the server ended the transaction because it was idle."""
        return idle_timeout_error(self._fatal)

    def _close_guard(self) -> None:
        if self._guard is not None:
            self._guard._close()  # noqa: SLF001 - a handler must not find it among the methods
            self._guard = None
            mark_ended(self._connection)


def _translate(error: asyncpg.PostgresError) -> Exception:
    if error.sqlstate == _MOVED:
        return CheckpointMoved(str(error))
    if error.sqlstate == _ANOTHER_TRANSACTION:
        return _ended_by_handler()
    if error.sqlstate == _RESET:
        return TransactionMisused(
            "the handler reset the settings of ctx.tx, those of its lease among them: nothing of this batch is kept. "
            "Leave out RESET ALL; the connection's settings are reset by themselves after the batch"
        )
    if error.sqlstate == _READ_ONLY:
        return TransactionMisused(
            "the handler made the transaction of ctx.tx read only: it also moves the checkpoint, and nothing of this "
            "batch is kept. Leave out SET TRANSACTION READ ONLY"
        )
    if error.sqlstate == _FAILED_TRANSACTION:
        return SupervisorError(
            "a statement on ctx.tx failed, and the handler returned as if it had not: the transaction cannot commit. "
            "Put what may fail into `async with ctx.tx.transaction():`"
        )
    return error


def _ended_by_handler() -> TransactionMisused:
    return TransactionMisused(
        "the handler ended the transaction of ctx.tx behind its back: the checkpoint was not moved, but what the "
        "handler committed so stays. Remove the COMMIT or ROLLBACK from its statements"
    )
