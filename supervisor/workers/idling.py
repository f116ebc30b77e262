"""What a fenced transaction ends with in which the worker asked nothing for too long; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.errors import TransactionMisused

if TYPE_CHECKING:
    from supervisor.database.fatal_message import FatalMessageTap

_IDLED = "(25P03)"


def idled(said: FatalMessageTap) -> TransactionMisused | None:
    """Return what the worker has done if the server ended the transaction for that; None: it did not.

    asyncpg only knows that the connection is closed.
    """
    if said.message is None or _IDLED not in said.message:
        return None
    return TransactionMisused(
        "the server ended the transaction, because for 60 s nothing was asked in it (25P03): a holder that hangs must "
        "not keep its lease from the others. Do not wait for anything else inside of ctx.transaction() or with ctx.tx"
    )
