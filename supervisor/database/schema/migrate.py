"""The migrator of the SQL schema, and what a daemon does about the schema at its start.

One statement answers when there is nothing to do. The missing files are applied in one transaction under a lock,
because several daemons may start at the same moment. `version.py` decides whether they have to be.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import asyncpg

from supervisor.backoff import delay_s
from supervisor.database.error_class import CONNECTION_ERRORS, ErrorClass, classify, may_be_connection_loss
from supervisor.database.schema.grants import DAEMON_GRANTS, GRANT_NEW_OBJECTS_SQL, REMEMBER_OBJECTS_SQL, listed
from supervisor.database.schema.locks import LockSpace
from supervisor.database.schema.version import (
    FOLDER,
    applied_migrations,
    migration_files,
    needs_upgrade,
    unreleased_text,
    version_of,
)
from supervisor.errors import ConnectAttemptsExhausted, DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible
from supervisor.escaping import message_of, sqlstate_of
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import ConnectPolicy
    from supervisor.database.database import Database
    from supervisor.database.schema.version import MigrationFile, Mode

# Each statement that reads the catalog comes after the lock, so that its snapshot is taken under the lock:
# `CREATE SCHEMA IF NOT EXISTS` alone fails when two sessions run it at once. The server ends a migrator that freezes,
# so that the others can go on. The settings of a role or database must not change the outcome.
_BEGIN_SQL = f"""
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '60s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
SET LOCAL client_min_messages = 'warning';
SET LOCAL search_path = pg_catalog;
SET LOCAL check_function_bodies = on;
SELECT pg_catalog.pg_advisory_xact_lock({LockSpace.MIGRATION:d}, 0)
"""
# An existing schema is not created again: even with IF NOT EXISTS that needs CREATE on the database.
_PREPARE_SQL = """
DO $$ BEGIN
    IF to_regnamespace('supervisor') IS NULL THEN
        CREATE SCHEMA supervisor;
    END IF;
    IF to_regclass('supervisor.migration') IS NULL THEN
        CREATE TABLE supervisor.migration (
            version int PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            oldest_daemon int NOT NULL,
            digest text NOT NULL
        );
        COMMENT ON COLUMN supervisor.migration.oldest_daemon IS
            'The schema version of the oldest daemon that may run on this version.';
        COMMENT ON COLUMN supervisor.migration.digest IS 'SHA-256 of the file that was applied.';
    END IF;
END $$
"""
_RECORD_SQL = "INSERT INTO supervisor.migration (version, oldest_daemon, digest) VALUES ({}, {}, '{}')"
# A session that wants a table for which the migrator waits has to wait behind the migrator: keep that short.
_SHORT_LOCK_TIMEOUT_SQL = "SET LOCAL lock_timeout = '500ms'"
_BLOCKING_SESSION_SQL = f"""
SELECT format('pid %s (%s, %s)', a.pid, coalesce(nullif(a.application_name, ''), 'nameless'), a.state)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.granted AND a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.datid = l.database
    AND (l.locktype = 'advisory' AND l.classid = {LockSpace.MIGRATION:d}
        OR l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('supervisor')))
ORDER BY l.locktype = 'advisory' DESC, a.xact_start LIMIT 1
"""  # noqa: S608 - a constant
# Locks, deadlocks, memory and disk, a statement that took too long, and a schema that somebody creates at this moment.
_TRANSIENT = ("55P03", "40001", "40P01", "53", "57014", "23505", "42P06")
_STATEMENT_TIMEOUT_S = 65.0  # a little more than the server's own limit
_MIGRATION_TIMEOUT_S = 60.0
_MIGRATION_PAUSE_S = 0.5
_PAUSE_S = 0.25
_MAX_CONNECTION_LOSSES = 20


class MigrationResult(NamedTuple):
    """The result of bringing a schema up to date.

    Attributes:
        former: The version that was found, 0: there was no schema.
        version: The version that the schema has now.
        daemon: The schema version of this daemon; smaller than `version` if the schema is newer and lets it run.
    """

    former: int
    version: int
    daemon: int


async def migrate(connection: Any, *, mode: Mode, clock: Clock, rng: Random, folder: Path = FOLDER) -> MigrationResult:
    """Read the version of the schema behind a connection and apply what is missing, all of it or nothing.

    Args:
        connection: asyncpg's, in no transaction, and not used by others meanwhile.
        mode: `check` changes nothing.
        clock: For the pauses between tries.
        rng: For their jitter.
        folder: The folder of the SQL files.

    Raises:
        SchemaIncompatible: The schema does not allow this daemon, or must not be changed, or is another program's.
        DatabaseAccessDenied: A privilege is missing, or the server is read-only.
        ConnectAttemptsExhausted: Other sessions kept what had to be changed locked for too long.
        DatabaseUnavailable: The connection was lost; nothing is half applied, and the call may be repeated.
    """
    files = migration_files(folder)
    found = None
    try:
        found = version_of(applied := await applied_migrations(connection))
        if not needs_upgrade(applied, files, mode):
            return MigrationResult(found, found, len(files))
        former, version = await _upgrade(connection, files, clock=clock, rng=rng)
    except CONNECTION_ERRORS as error:
        raise_schema_error(error, found, len(files))
    return MigrationResult(former, version, len(files))


async def _upgrade(connection: Any, files: Sequence[MigrationFile], *, clock: Clock, rng: Random) -> tuple[int, int]:
    """Apply the missing files, and return the versions before and after, both read under the lock.

    After a transient failure, such as a lock that another session holds, it tries again, for about a minute. The pauses
    have jitter: ten migrators that failed together must not return together.
    """
    until_s = clock.now_s() + _MIGRATION_TIMEOUT_S
    while True:
        try:
            return await _apply_missing(connection, files)
        except asyncpg.PostgresError as error:
            if not (error.sqlstate or "").startswith(_TRANSIENT):
                raise
            if clock.now_s() >= until_s:
                raise await _gave_up(connection, error) from error
        await clock.sleep(_MIGRATION_PAUSE_S * (0.5 + rng.random()))


async def _apply_missing(connection: Any, files: Sequence[MigrationFile]) -> tuple[int, int]:
    # Explicit, because under a default of REPEATABLE READ the version would be the one from before the lock.
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_BEGIN_SQL, timeout=_STATEMENT_TIMEOUT_S)
        await connection.execute(_PREPARE_SQL, timeout=_STATEMENT_TIMEOUT_S)
        applied = await applied_migrations(connection)
        former = version_of(applied)
        if not needs_upgrade(applied, files, "auto"):
            return former, former
        await connection.execute(_SHORT_LOCK_TIMEOUT_SQL)
        await connection.execute(REMEMBER_OBJECTS_SQL)
        for file in files[former:]:
            await connection.execute(file.sql, timeout=_STATEMENT_TIMEOUT_S)
            await connection.execute(_RECORD_SQL.format(file.version, file.oldest_daemon, file.digest))
        await connection.execute(GRANT_NEW_OBJECTS_SQL)
    return former, len(files)


async def _gave_up(connection: Any, error: asyncpg.PostgresError) -> ConnectAttemptsExhausted:
    session = None
    with contextlib.suppress(asyncpg.PostgresError):
        session = await connection.fetchval(_BLOCKING_SESSION_SQL)
    blocked_by = f"; {session} is in the way" if session else ""
    return ConnectAttemptsExhausted(
        f"gave up on the SQL schema after {_MIGRATION_TIMEOUT_S:g}s: {error} ({error.sqlstate}){blocked_by}"
    )


def raise_schema_error(error: Exception, found: int | None, known: int) -> NoReturn:
    """Raise the error that a failure over the schema means to the daemon, with its remedy.

    Args:
        error: asyncpg's, or the operating system's.
        found: The version that was read, 0: there is no schema; None: it could not be read.
        known: The version that the schema was to have.

    Raises:
        DatabaseAccessDenied: A privilege is missing, or the server is read-only.
        DatabaseUnavailable: The connection was lost.
        SchemaIncompatible: The schema cannot become what this daemon needs.
    """
    action, privilege = ("upgraded", "owns") if found else ("created", "may create")
    reason = f"{message_of(error)} ({sqlstate_of(error)})"
    match classify(error):
        case ErrorClass.ACCESS_DENIED if found is None:
            raise DatabaseAccessDenied(
                f"This role cannot read the version of the SQL schema (SELECT on supervisor.migration): {reason}. A"
                f" daemon whose role does not own the schema needs {listed(DAEMON_GRANTS)} to that role."
            ) from error
        case ErrorClass.ACCESS_DENIED:
            raise DatabaseAccessDenied(
                f"The SQL schema cannot be {action}: {reason}. Run `pgsupervisor migrate` with the login of a role that"
                f" {privilege} it (PGSUPERVISOR__DATABASE__DSN=…); a daemon whose role does not own the schema needs"
                f" {listed(DAEMON_GRANTS)} to that role."
            ) from error
        case ErrorClass.READ_ONLY:
            raise DatabaseAccessDenied(
                f"The SQL schema cannot be {action}: {reason}. Run `pgsupervisor migrate` on the primary."
            ) from error
        case _ if may_be_connection_loss(error):
            raise DatabaseUnavailable(f"The connection was lost over the SQL schema: {message_of(error)}") from error
        case _ if isinstance(error, asyncpg.UndefinedColumnError) and re.search("oldest_daemon|digest", str(error)):
            raise SchemaIncompatible(unreleased_text(reason)) from error
        case _:
            raise SchemaIncompatible(
                f"The SQL schema cannot be brought to version {known}: {reason}. Another program may have a schema"
                " named supervisor in this database."
            ) from error


async def ensure_schema(
    database: Database, *, mode: Callable[[], Mode], is_needed: Callable[[], bool], clock: Clock, rng: Random,
    folder: Path = FOLDER,
) -> None:  # fmt: skip
    """Make sure of the schema at a daemon's start, before anything uses it; wait until an outage is over.

    Args:
        database: The database, which has been up.
        mode: Returns `database.migrate`; asked for each try, because a reload may change it meanwhile.
        is_needed: Returns whether a worker needs the schema; else a schema that cannot be used is logged, and nothing
            more. Asked for each try, too.
        clock: For pauses.
        rng: For their jitter.
        folder: The folder of the SQL files.

    Raises:
        SchemaIncompatible: A worker needs the schema, and an operator must change something first.
        DatabaseAccessDenied: A worker needs the schema, a privilege is missing or the server is read-only, and
            `retry_refused` is off.
        ConnectAttemptsExhausted: Other sessions kept what had to be changed locked for too long, or every attempt
            failed.
    """
    losses = refusals = 0
    while True:
        await database.wait_until_up()
        began_s = clock.now_s()
        try:
            result = await _migrate_if_needed(database, mode=mode(), clock=clock, rng=rng, folder=folder)
        except DatabaseAccessDenied as error:
            if not is_needed():
                log_absent(error)
                return
            pause_s = _pause_after_refusal(database.monitor.config.startup, refusals, error, sample=rng.random())
            if refusals == 0:
                log_event("schema.waiting", reason=str(error))
            refusals += 1
        except SchemaIncompatible as error:
            if is_needed():
                raise
            log_absent(error)
            return
        except DatabaseUnavailable as error:
            losses += 1
            if losses == _MAX_CONNECTION_LOSSES:
                raise ConnectAttemptsExhausted(f"gave up on the SQL schema after {losses} tries: {error}") from error
            await database.monitor.check_now()  # after an outage, wait for its end instead of trying again at once
            pause_s = _PAUSE_S * (1 + rng.random())
        else:
            log_migrated(result, took_s=clock.now_s() - began_s)
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


async def _migrate_if_needed(
    database: Database, *, mode: Mode, clock: Clock, rng: Random, folder: Path
) -> MigrationResult:
    """Read the version on the monitor's own connection, which exists already; upgrade on a connection of the pool."""
    connected = database.monitor.connected
    if connected is not None:
        files = migration_files(folder)
        try:
            async with database.monitor.lock:
                applied = await applied_migrations(connected.connection)
        except CONNECTION_ERRORS as error:
            raise_schema_error(error, None, len(files))
        if not needs_upgrade(applied, files, mode):
            found = version_of(applied)
            return MigrationResult(found, found, len(files))
    pool, connection = await database.acquire(None)
    try:
        return await migrate(connection, mode=mode, clock=clock, rng=rng, folder=folder)
    finally:
        await database.release(pool, connection)


def log_migrated(result: MigrationResult, *, took_s: float) -> None:
    """Log that the schema was changed, if it was, and that it is newer than this daemon, if it is."""
    if result.former != result.version:
        former: dict[str, Any] = {"former": result.former} if result.former else {}
        log_event("schema.applied", version=result.version, took_s=round(took_s, 3), **former)
    if result.version > result.daemon:
        log_event("schema.newer", version=result.version, daemon=result.daemon)


def log_absent(error: DatabaseAccessDenied | SchemaIncompatible) -> None:
    """Log that there is no usable schema and that no worker needs it; the catalog has the remedy."""
    cause = error.__cause__
    reason = f"{message_of(cause)} ({sqlstate_of(cause)})" if cause is not None else str(error)
    log_event("schema.absent", reason=reason)
