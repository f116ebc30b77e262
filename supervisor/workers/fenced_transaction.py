"""A transaction that cannot commit once its lease has passed to another node."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from supervisor.database.asyncpg_private import raw_connection
from supervisor.database.fatal_message import FatalMessageTap, tap
from supervisor.errors import LeaseLost, TransactionMisused
from supervisor.leases.fence import begin_fence
from supervisor.leases.lease import LeaseStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from supervisor.database.worker_pool import WorkerPool
    from supervisor.leases.lease import Lease, LeaseHandle

# The fence only waits while a new holder advances the epoch, which takes milliseconds.
_FENCE_TIMEOUT_S = 10.0
_IS_SAME = "select pg_current_xact_id_if_assigned() is not distinct from $1::text::xid8"
_IDLE_TIMEOUT = "(25P03)"


@asynccontextmanager
async def fenced_transaction(db: WorkerPool, lease_handle: LeaseHandle, lease: Lease | None) -> AsyncIterator[Any]:
    """Open a transaction under a lease on a connection of the pool, and yield the connection.

    Args:
        db: The worker's pool.
        lease_handle: This node's view of the lease.
        lease: The lease under which the worker's run began.

    Raises:
        LeaseLost: The lease is lost; nothing has been written.
        TransactionMisused: The worker's own SQL ended the transaction: what it wrote until then has been committed
            under the lease, what it wrote afterwards was not fenced. Or the server ended it, because no statement came
            for a minute; nothing has been written.
    """
    require_held(lease_handle, lease)
    refusal: LeaseLost | None = None
    fatal = FatalMessageTap()
    try:
        async with db.acquire() as connection:
            fatal = tap(raw_connection(connection))
            # The pool may have taken a while to give a connection.
            held = require_held(lease_handle, lease)
            async with connection.transaction():
                try:
                    transaction = await begin_fence(connection, held, _FENCE_TIMEOUT_S)
                except LeaseLost as error:
                    refusal = error
                    raise
                yield connection
                await _verify_same_transaction(connection, transaction, lease_handle.name)
    except Exception as error:
        if (misuse := idle_timeout_error(fatal)) is not None:
            raise misuse from error
        raise
    finally:
        if refusal is not None:
            # This cancels the current task; any earlier, it would interrupt the rollback.
            lease_handle.report_lost(str(refusal))


async def _verify_same_transaction(connection: Any, transaction: int, lease: str) -> None:
    if not await connection.fetchval(_IS_SAME, str(transaction)):
        raise TransactionMisused(
            f"the worker ended the transaction of ctx.transaction() by itself (lease {lease}): what it wrote "
            "afterwards was not fenced. Leave COMMIT and ROLLBACK to the end of the block"
        )


def require_held(lease_handle: LeaseHandle, lease: Lease | None) -> Lease:
    """Return `lease` if this node still holds it.

    Raises:
        LeaseLost: It does not.
    """
    if (
        lease is None
        or lease_handle.lease != lease
        or lease_handle.status not in (LeaseStatus.HELD, LeaseStatus.REVOKING)
    ):
        raise LeaseLost(f"the lease {lease_handle.name} is lost: nothing may be written under it any more")
    return lease


def idle_timeout_error(fatal: FatalMessageTap) -> TransactionMisused | None:
    """Return the error that explains it if the server ended the transaction because it was idle; None: it did not.

    asyncpg only knows that the connection is closed.
    """
    if fatal.message is None or _IDLE_TIMEOUT not in fatal.message:
        return None
    return TransactionMisused(
        "the server ended the transaction, because for 60 s nothing was asked in it (25P03): a holder that hangs must "
        "not keep its lease from the others. Do not wait for anything else inside of ctx.transaction() or with ctx.tx"
    )
