"""The fence: a transaction under a lease cannot commit once another acquisition has begun a new epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.errors import LeaseLost

if TYPE_CHECKING:
    from supervisor.leases.lease import Lease

_FENCE_SQL = "SELECT supervisor.fence($1, $2, $3)::text"


async def begin_fence(connection: Any, lease: Lease, limit_s: float) -> int:
    """Bind the transaction that has just begun to a lease, and return the transaction's id.

    Until the transaction ends, no other node can acquire the lease without terminating it first.

    Args:
        connection: asyncpg's, or the pool's proxy of one, inside a transaction with no statement yet.
        lease: The lease that the caller believes to hold.
        limit_s: How long the one statement may take.

    Raises:
        LeaseLost: The lease has passed on; the transaction can only be rolled back.
    """
    try:
        transaction = await connection.fetchval(_FENCE_SQL, lease.id, lease.epoch, lease.incarnation, timeout=limit_s)
    except asyncpg.SerializationError as error:
        # In REPEATABLE READ and above this error shows that the row was changed after the snapshot.
        raise LeaseLost(_message(lease)) from error
    if transaction is None:
        raise LeaseLost(_message(lease))
    return int(transaction)


def _message(lease: Lease) -> str:
    return (
        f"the lease {lease.name} has passed on: epoch {lease.epoch} is over, and nothing is written under it any more"
    )
