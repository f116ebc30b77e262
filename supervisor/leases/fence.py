"""Fencing: a transaction that cannot commit once its lease has passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.errors import LeaseLost

if TYPE_CHECKING:
    from supervisor.leases.lease import Lease

_FENCE = "SELECT supervisor.fence($1, $2, $3)::text"


async def begin_fence(connection: Any, lease: Lease, limit_s: float) -> int:
    """Put the transaction that has just begun under a lease, and return the transaction's id.

    From here to its end nobody else can acquire the lease without ending the transaction first.

    Args:
        connection: asyncpg's, or the pool's proxy of one, inside of a transaction with no statement yet.
        lease: What the caller holds, or believes to hold.
        limit_s: How long the one statement may take.

    Raises:
        LeaseLost: The lease has passed on; the transaction can only be rolled back.
    """
    try:
        transaction = await connection.fetchval(_FENCE, lease.id, lease.epoch, lease.incarnation, timeout=limit_s)
    except asyncpg.SerializationError as error:
        # In REPEATABLE READ and above that is how a row shows that was changed after the snapshot.
        raise LeaseLost(_sentence(lease)) from error
    if transaction is None:
        raise LeaseLost(_sentence(lease))
    return int(transaction)


def _sentence(lease: Lease) -> str:
    return (
        f"the lease {lease.name} has passed on: epoch {lease.epoch} is over, and nothing is written under it any more"
    )
