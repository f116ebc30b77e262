"""What has to be true of a database before a reload moves to it, or adds the first worker with a lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from supervisor.database.schema.migrate import log_absent, log_migrated, migrate
from supervisor.errors import DatabaseAccessDenied, DatabaseUnavailable

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import DatabaseConfig
    from supervisor.database.monitor import ConnectionMonitor

_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# No node has this number: the statement shows that it can be asked, and nothing else.
_NOBODY = 0


async def prove_schema(
    gate: ConnectionMonitor, config: DatabaseConfig, *, is_needed: bool, clock: Clock, rng: Random
) -> None:
    """Have the SQL schema that this version needs behind a gate that is connected.

    Args:
        gate: The gate.
        config: `[database]`.
        is_needed: Whether a worker cannot do without; else one that cannot be made is told and no more.
        clock: For pauses.
        rng: For their jitter.

    Raises:
        SupervisorError: The schema cannot be had; nothing has changed.
    """
    link = gate.connected
    if link is None:
        raise DatabaseUnavailable("the database is away, so that nobody knows whether the SQL schema is there")
    try:
        connection = await gate.connector.connect(link.endpoint)
    except _LOST as error:
        raise DatabaseUnavailable(f"the SQL schema could not be looked at: {error}") from error
    began_s = clock.now_s()
    try:
        result = await migrate(connection, mode=config.migrate, clock=clock, rng=rng)
    except DatabaseAccessDenied as error:
        if is_needed:
            raise
        log_absent(error)
    else:
        log_migrated(result, took_s=clock.now_s() - began_s)
    finally:
        connection.terminate()


async def prove_leases(gate: ConnectionMonitor, *, clock: Clock) -> None:
    """Make sure that a node can live on the connection of a gate that is not in force yet.

    Raises:
        SupervisorError: It cannot; nothing has changed.
    """
    # Only where there are leases.
    from supervisor.database.session import Session  # noqa: PLC0415
    from supervisor.leases.pooler_check import reject_transaction_pooling  # noqa: PLC0415
    from supervisor.leases.snapshot import SNAPSHOT_SQL  # noqa: PLC0415

    assert gate.connected is not None  # noqa: S101 - it has just connected
    session = Session(gate, gate.connected, clock=clock)
    await reject_transaction_pooling(session, is_thorough=True)
    try:
        await session.fetch(SNAPSHOT_SQL, _NOBODY)
    except asyncpg.PostgresError as error:
        raise DatabaseAccessDenied(f"this role may not do what a node does: {error} ({error.sqlstate})") from error
