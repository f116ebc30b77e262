"""The version of the SQL schema: looked at by every start, with one statement when there is nothing to do.

The schema is what the files `schema/001_….sql`, `002_….sql`, … make, one after the other, and its version is the
number of the last one. How the missing ones are applied stands in `upgrade.py`, which a start seldom needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from supervisor.backoff import delay_s
from supervisor.database.error_class import sqlstate_of
from supervisor.database.schema_error import explain
from supervisor.errors import ConnectAttemptsExhausted, DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random
    from typing import Literal

    from supervisor.clock import Clock
    from supervisor.config.model import ConnectPolicy
    from supervisor.database.database import Database

    Mode = Literal["auto", "check"]

SCHEMA = Path(__file__).parent / "schema"
# The number of rows is the answer: it comes with the simple protocol's command tag, in one round trip and without a
# prepared statement, which a proxy might lose.
_VERSION = "SELECT FROM pg_catalog.generate_series(1, (SELECT max(version) FROM supervisor.migration))"
_LOOK_LIMIT_S = 5.0
_PAUSE_S = 0.25
_LOST_AT_MOST = 20


class Change(NamedTuple):
    """What bringing a schema up to date came to.

    Attributes:
        former: The version that was found, 0: there was no schema.
        version: The version that it has now.
    """

    former: int
    version: int


def known_files(folder: Path = SCHEMA) -> Sequence[Path]:
    """Return the files that make the schema, in their order; the version of each is its place, counted from 1."""
    return sorted(file for file in folder.iterdir() if file.suffix == ".sql")


async def version_of(connection: Any) -> int:
    """Return the version of the schema behind a connection, 0 when there is none.

    Raises:
        asyncpg.PostgresError: It may not be read, or `supervisor.migration` is something else.
    """
    try:
        tag = await connection.execute(_VERSION, timeout=_LOOK_LIMIT_S)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return 0
    return int(tag.rpartition(" ")[2])


def is_outdated(found: int, known: int, mode: Mode) -> bool:
    """Whether the schema is to be brought from version `found` to `known`.

    Raises:
        SchemaIncompatible: It is newer, or older and only to be looked at.
    """
    if found > known:
        raise SchemaIncompatible(
            f"The SQL schema has version {found}, and this pgsupervisor knows versions up to {known}: a newer one has"
            " upgraded it. Install that version of pgsupervisor here too."
        )
    if found < known and mode == "check":
        what = f"has version {found}" if found else "is not there"
        raise SchemaIncompatible(
            f'The SQL schema {what}, version {known} is needed, and migrate = "check" changes nothing:'
            " run `pgsupervisor migrate`."
        )
    return found < known


async def bring_up_to_date(connection: Any, *, mode: Mode, clock: Clock, rng: Random, folder: Path = SCHEMA) -> Change:
    """Look at the schema behind a connection and apply what is missing; all of it or nothing.

    Args:
        connection: asyncpg's, in no transaction, and used by nobody else meanwhile.
        mode: `check` changes nothing.
        clock: For the pauses between tries.
        rng: For their jitter.
        folder: Where the SQL files are.

    Raises:
        SchemaIncompatible: It is newer, or older and only to be looked at, or something else stands in its place.
        DatabaseAccessDenied: A privilege is missing, or the server is read-only.
        ConnectAttemptsExhausted: Others kept what had to be changed locked for too long.
        DatabaseUnavailable: The connection was lost; nothing is half applied, it may be called again.
    """
    known = len(known_files(folder))
    found = 0
    try:
        found = await version_of(connection)
        if not is_outdated(found, known, mode):
            return Change(found, known)
        from supervisor.database.upgrade import upgrade  # noqa: PLC0415 - only the first of all starts needs it

        former = await upgrade(connection, known_files(folder), clock=clock, rng=rng)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        explain(error, found, known)
    return Change(former, known)


async def ensure_schema(
    database: Database, *, mode: Mode, is_needed: bool, clock: Clock, rng: Random, folder: Path = SCHEMA
) -> None:
    """Have the schema that this version needs before anything uses it; an outage meanwhile is waited out.

    Args:
        database: The database, which has been up.
        mode: `database.migrate`.
        is_needed: Whether a worker cannot do without; else a schema that cannot be made is told and no more.
        clock: For pauses.
        rng: For their jitter.
        folder: Where the SQL files are.

    Raises:
        SchemaIncompatible: A person must change something first.
        DatabaseAccessDenied: A privilege is missing, or the server is read-only, and `retry_refused` is off.
        ConnectAttemptsExhausted: Others kept what had to be changed locked for too long, or every attempt failed.
    """
    known = len(known_files(folder))
    losses = refusals = 0
    while True:
        await database.wait_until_up()
        began_s = clock.now_s()
        try:
            change = await _look_or_change(database, known, mode=mode, clock=clock, rng=rng, folder=folder)
        except DatabaseAccessDenied as error:
            if not is_needed:
                tell_absent(error)
                return
            pause_s = _pause_after_refusal(database.monitor.config.startup, refusals, error, sample=rng.random())
            if refusals == 0:
                log_event("schema.awaited", reason=str(error))
            refusals += 1
        except DatabaseUnavailable as error:
            losses += 1
            if losses == _LOST_AT_MOST:
                raise ConnectAttemptsExhausted(f"gave up on the SQL schema after {losses} tries: {error}") from error
            await database.monitor.check_now()  # after an outage, wait for its end instead of trying again at once
            pause_s = _PAUSE_S * (1 + rng.random())
        else:
            tell_applied(change, took_s=clock.now_s() - began_s)
            return
        await clock.sleep(pause_s)


def _pause_after_refusal(policy: ConnectPolicy, refusals: int, error: DatabaseAccessDenied, *, sample: float) -> float:
    """Return how long to wait after one more refusal.

    Raises:
        DatabaseAccessDenied: A refusal ends the start.
        ConnectAttemptsExhausted: This was the last attempt.
    """
    if not policy.retry_refused:
        raise error
    if policy.attempts and refusals + 1 >= policy.attempts:
        raise ConnectAttemptsExhausted(
            f"gave up on the SQL schema after {policy.attempts} attempts: {error}"
        ) from error
    return delay_s(policy.backoff, refusals, sample)


def tell_applied(change: Change, *, took_s: float) -> None:
    """Say that the schema was changed, if it was."""
    if change.former != change.version:
        former: dict[str, Any] = {"former": change.former} if change.former else {}
        log_event("schema.applied", version=change.version, took_s=round(took_s, 3), **former)


def tell_absent(error: DatabaseAccessDenied) -> None:
    """Say that there is no schema and that nobody needs it; the remedy stands in the catalog."""
    cause = error.__cause__ or error
    log_event("schema.absent", reason=f"{cause} ({sqlstate_of(cause)})")


async def _look_or_change(
    database: Database, known: int, *, mode: Mode, clock: Clock, rng: Random, folder: Path
) -> Change:
    """Look on the gate's own connection, which is there already; change on one that nobody else uses."""
    link = database.monitor.connected
    if link is not None:
        try:
            async with database.monitor.mutex:
                found = await version_of(link.connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            explain(error, 0, known)
        if not is_outdated(found, known, mode):
            return Change(known, known)
    pool, connection = await database.acquire(None)
    try:
        return await bring_up_to_date(connection, mode=mode, clock=clock, rng=rng, folder=folder)
    finally:
        await database.release(pool, connection)
