"""The transaction of one batch: fenced, guarded, and committed together with the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.database.asyncpg_private import mark_begun, mark_ended, raw_connection
from supervisor.database.fatal_message import tap
from supervisor.errors import LeaseLost, SupervisorError, TransactionMisused
from supervisor.workers.guard import GuardedConnection
from supervisor.workers.idling import idled

if TYPE_CHECKING:
    from supervisor.leases.lease import Lease

# The fence waits for nothing but the bump of a new holder, which is a matter of milliseconds.
_ENTER_LIMIT_S = 10.0
_ROLLBACK_LIMIT_S = 5.0
# What the functions of the schema raise; 40001 says the same as the first: the row was changed under our eyes.
_LEASE_LOST = frozenset({"SVL01", "40001"})
_MOVED = "SVM01"
# Back from SET SESSION AUTHORIZATION, then from SET ROLE: without LOCAL they would outlive the transaction, too.
_OWN_ROLE = "RESET SESSION AUTHORIZATION; RESET ROLE"
_ANOTHER_TRANSACTION = "SVT01"
_RESET = "SVT02"
_READ_ONLY = "25006"
_FAILED_TRANSACTION = "25P02"


class CheckpointMoved(SupervisorError):
    """Somebody else has moved the checkpoint since it was read: the batch is rolled back, and read anew."""


class BatchTransaction:
    """One transaction on a connection on loan; it costs two round trips beside the handler's own."""

    __slots__ = ("_connection", "_guard", "_said")

    def __init__(self, lent: Any) -> None:
        self._connection = raw_connection(lent)
        self._said = tap(self._connection)
        self._guard: GuardedConnection | None = None

    async def begin(self, lease: Lease) -> GuardedConnection:
        """Begin, and return what the handler may use.

        Raises:
            LeaseLost: The lease has passed on.
        """
        enter = f"supervisor.enter_batch({lease.id}, {lease.epoch}, '{lease.incarnation}')"
        try:
            await self._connection.execute(
                f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT {enter}",
                timeout=_ENTER_LIMIT_S,
            )
        except asyncpg.PostgresError as error:
            if error.sqlstate in _LEASE_LOST:
                raise LeaseLost(f"the lease {lease.name} has passed on") from error
            raise
        mark_begun(self._connection)
        self._guard = GuardedConnection(self._connection)
        return self._guard

    def take_back(self) -> None:
        """End the handler's use of it.

        Raises:
            TransactionMisused: The handler has ended the transaction.
        """
        self._close()
        if not self._connection.is_closed() and not self._connection.is_in_transaction():
            raise _ended()

    async def commit(self, last: str = "") -> None:
        """Commit, after a last statement, as the role that the connection has: the handler may have set another.

        Raises:
            CheckpointMoved: Somebody else has moved the checkpoint.
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
            raise _meaning(error) from error

    async def abandon(self, error: BaseException) -> bool:
        """Roll back after an error, and return whether the connection is still good."""
        self._close()
        connection = self._connection
        # Who is cancelled may have a lease to give back, and must not wait for a peer that may be gone.
        if isinstance(error, Exception) and not connection.is_closed():
            try:
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK", timeout=_ROLLBACK_LIMIT_S)
            except BaseException as failure:
                connection.terminate()
                if not isinstance(failure, Exception):
                    raise
            else:
                return True
        connection.terminate()
        return False

    def why_cut(self) -> TransactionMisused | None:
        """Return what the handler did if the server has ended the transaction for that."""
        return idled(self._said)

    def _close(self) -> None:
        if self._guard is not None:
            self._guard._close()  # noqa: SLF001 - nobody but its maker
            self._guard = None
            mark_ended(self._connection)


def _meaning(error: asyncpg.PostgresError) -> Exception:
    if error.sqlstate == _MOVED:
        return CheckpointMoved(str(error))
    if error.sqlstate == _ANOTHER_TRANSACTION:
        return _ended()
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


def _ended() -> TransactionMisused:
    return TransactionMisused(
        "the handler ended the transaction of ctx.tx behind its back: the checkpoint was not moved, but what the "
        "handler committed so stays. Remove the COMMIT or ROLLBACK from its statements"
    )
