"""Applying the missing part of the SQL schema: one transaction, under a lock, whoever else starts at this moment."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.database.migration import is_outdated, version_of
from supervisor.errors import ConnectAttemptsExhausted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from random import Random

    from supervisor.clock import Clock

# Everything that looks at the catalog comes behind the lock and in statements of their own, hence with snapshots
# taken under it: `CREATE SCHEMA IF NOT EXISTS` alone fails when two do it at once. A migrator that freezes is ended
# by the server, so that the others can go on. What a role has set for itself must not change the outcome.
_BEGIN = """
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '60s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
SET LOCAL client_min_messages = 'warning';
SET LOCAL search_path = pg_catalog;
SET LOCAL check_function_bodies = on;
SELECT pg_catalog.pg_advisory_xact_lock(1885827845, 0)
"""
# An existing schema is not created again, not even with IF NOT EXISTS: that needs CREATE on the database all the same.
_PREPARE = """
DO $$ BEGIN
    IF to_regnamespace('supervisor') IS NULL THEN
        CREATE SCHEMA supervisor;
    END IF;
    IF to_regclass('supervisor.migration') IS NULL THEN
        CREATE TABLE supervisor.migration (
            version int PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
    END IF;
END $$
"""
_NOTE = "INSERT INTO supervisor.migration (version) VALUES ({})"
# Whoever wants a table that an upgrade waits for waits behind it: not for longer than this.
_BRIEFLY = "SET LOCAL lock_timeout = '500ms'"
_STATEMENT_LIMIT_S = 65.0  # a little more than the server's own limit
_LIMIT_S = 60.0
_PAUSE_S = 0.5
# Locks, deadlocks, memory and disk, a statement that took too long, and somebody who creates the schema by hand.
_PASSING = ("55P03", "40001", "40P01", "53", "57014", "23505", "42P06")
_WHO = """
SELECT format('pid %s (%s, %s)', a.pid, coalesce(nullif(a.application_name, ''), 'nameless'), a.state)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.granted AND a.pid <> pg_backend_pid() AND a.datname = current_database() AND a.datid = l.database
    AND (l.locktype = 'advisory' AND l.classid = 1885827845
        OR l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('supervisor')))
ORDER BY l.locktype = 'advisory' DESC, a.xact_start LIMIT 1
"""


async def upgrade(connection: Any, files: Sequence[Path], *, clock: Clock, rng: Random) -> int:
    """Apply the files that are missing, and return the version that was found under the lock.

    What passes by itself, such as a lock that others hold, is tried again for about a minute.

    Args:
        connection: asyncpg's, in no transaction.
        files: All that make the schema.
        clock: For the pauses and the limit.
        rng: For jitter: ten migrators that were all turned away must not return in one instant.

    Raises:
        SchemaIncompatible: A newer pgsupervisor was faster.
        ConnectAttemptsExhausted: Others kept what had to be changed locked for too long.
        asyncpg.PostgresError: It cannot be done. Nothing has changed.
    """
    until_s = clock.now_s() + _LIMIT_S
    while True:
        try:
            return await _apply(connection, files)
        except asyncpg.PostgresError as error:
            if not (error.sqlstate or "").startswith(_PASSING):
                raise
            if clock.now_s() >= until_s:
                raise await _gave_up(connection, error) from error
        await clock.sleep(_PAUSE_S * (0.5 + rng.random()))


async def _apply(connection: Any, files: Sequence[Path]) -> int:
    # The isolation is said: with a default of REPEATABLE READ the version would be the one from before the lock.
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_BEGIN, timeout=_STATEMENT_LIMIT_S)
        await connection.execute(_PREPARE, timeout=_STATEMENT_LIMIT_S)
        former = await version_of(connection)
        if is_outdated(former, len(files), "auto"):
            await connection.execute(_BRIEFLY)
        for version, file in enumerate(files[former:], start=former + 1):
            await connection.execute(file.read_text("utf-8"), timeout=_STATEMENT_LIMIT_S)
            await connection.execute(_NOTE.format(version))
    return former


async def _gave_up(connection: Any, error: asyncpg.PostgresError) -> ConnectAttemptsExhausted:
    in_the_way = None
    with contextlib.suppress(asyncpg.PostgresError):
        in_the_way = await connection.fetchval(_WHO)
    who = f"; {in_the_way} is in the way" if in_the_way else ""
    return ConnectAttemptsExhausted(f"gave up on the SQL schema after {_LIMIT_S:g}s: {error} ({error.sqlstate}){who}")
