"""A transaction that cannot commit once its lease has passed to another node."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from supervisor.database.asyncpg_private import raw_connection
from supervisor.database.fatal_message import FatalMessageTap, tap
from supervisor.errors import LeaseLost, TransactionMisused
from supervisor.leases.fence import begin_fence
from supervisor.leases.lease import LeaseStatus
from supervisor.workers.idling import idled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from supervisor.database.worker_pool import WorkerPool
    from supervisor.leases.lease import Lease, LeaseHandle

# The fence waits for nothing but the bump of a new holder, which is a matter of milliseconds.
_ENTER_LIMIT_S = 10.0
_IS_SAME = "select pg_current_xact_id_if_assigned() is not distinct from $1::text::xid8"


@asynccontextmanager
async def fenced(db: WorkerPool, tenure: LeaseHandle, lease: Lease | None) -> AsyncIterator[Any]:
    """Open a transaction under a lease on a connection of the pool, which is yielded.

    Args:
        db: The worker's pool.
        tenure: How this node stands to the lease.
        lease: The lease under which the worker's run began.

    Raises:
        LeaseLost: The lease is lost; nothing has been written.
        TransactionMisused: The transaction was ended behind its back. What was written until then has been committed
            under the lease, what came afterwards was written without it. Or the server ended it, because for a minute
            nothing was asked in it; nothing has been written.
    """
    holding(tenure, lease)
    refusal: LeaseLost | None = None
    said = FatalMessageTap()
    try:
        async with db.acquire() as connection:
            said = tap(raw_connection(connection))
            # A connection may be long in coming.
            held = holding(tenure, lease)
            async with connection.transaction():
                try:
                    transaction = await begin_fence(connection, held, _ENTER_LIMIT_S)
                except LeaseLost as error:
                    refusal = error
                    raise
                yield connection
                await _refuse_another(connection, transaction, tenure.name)
    except Exception as error:
        if (misuse := idled(said)) is not None:
            raise misuse from error
        raise
    finally:
        if refusal is not None:
            # It cancels the very task that is here: before this, it would interrupt the rollback.
            tenure.report_lost(str(refusal))


async def _refuse_another(connection: Any, transaction: int, lease: str) -> None:
    if not await connection.fetchval(_IS_SAME, str(transaction)):
        raise TransactionMisused(
            f"the worker ended the transaction of ctx.transaction() by itself (lease {lease}): what it wrote "
            "afterwards was not fenced. Leave COMMIT and ROLLBACK to the end of the block"
        )


def holding(tenure: LeaseHandle, lease: Lease | None) -> Lease:
    """Return `lease` if it is still the one that this node holds.

    Raises:
        LeaseLost: It is not.
    """
    if lease is None or tenure.lease != lease or tenure.status not in (LeaseStatus.HELD, LeaseStatus.REVOKING):
        raise LeaseLost(f"the lease {tenure.name} is lost: nothing may be written under it any more")
    return lease
