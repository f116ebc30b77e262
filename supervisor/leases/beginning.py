"""How a node joins at the daemon's start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from supervisor.database.error_class import ErrorClass, classify
from supervisor.database.session import SessionEnded
from supervisor.errors import ConnectAttemptsExhausted, DatabaseAccessDenied, SchemaIncompatible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.clock import Clock
    from supervisor.database.database import Database
    from supervisor.database.session import Session, SessionHolder

_MOST_TRIES = 20
_PAUSE_S = 0.25


async def begin(
    database: Database, residence: SessionHolder, join: Callable[[Session], Awaitable[object]], *, clock: Clock
) -> None:
    """Join as soon as the database is there; an outage meanwhile is waited out.

    Raises:
        ConfigError: What `join` found is wrong with the connection string.
        DatabaseAccessDenied: A privilege is missing, or the server is read-only.
        SchemaIncompatible: The SQL schema is not what it should be.
        ConnectAttemptsExhausted: It did not work, again and again.
    """
    last: BaseException | None = None
    for _ in range(_MOST_TRIES):
        await database.wait_until_up()
        session = residence.session
        try:
            if session is not None:
                await join(session)
                return
        except SessionEnded as error:
            last = error
            await database.monitor.check_now()  # after an outage, wait for its end instead of trying again at once
        except asyncpg.PostgresError as error:
            _explain(error)
            last = error
        await clock.sleep(_PAUSE_S)
    raise ConnectAttemptsExhausted(f"gave up joining the other nodes after {_MOST_TRIES} tries: {last}") from last


def _explain(error: asyncpg.PostgresError) -> None:
    """Raise what the daemon reacts to, unless it may be better the next time."""
    says = f"{' '.join(str(error).split())} ({error.sqlstate})"
    if classify(error) is ErrorClass.ACCESS_DENIED:
        raise DatabaseAccessDenied(
            f"This role may not do what a node does: {says}. It needs USAGE on the schema supervisor, SELECT on its"
            " tables and EXECUTE on its functions."
        ) from error
    if classify(error) is ErrorClass.READ_ONLY:
        raise DatabaseAccessDenied(f"Singletons and projections need a server that can be written: {says}") from error
    if error.sqlstate[:2] in ("42", "3F"):
        raise SchemaIncompatible(
            f"The SQL schema is not what this pgsupervisor needs: {says}. Run `pgsupervisor migrate`."
        ) from error
