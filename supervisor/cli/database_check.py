"""What `check --connect` finds out about a database, without changing anything there.

A file of its own, because `check` alone needs neither the driver nor the database's parts.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from supervisor.config.kinds import needs_node, needs_schema
from supervisor.database.error_class import CONNECTION_ERRORS
from supervisor.database.monitor import ConnectionMonitor
from supervisor.database.schema.migrate import raise_schema_error
from supervisor.database.schema.version import applied_migrations, migration_files, needs_upgrade, version_of
from supervisor.database.session import Session
from supervisor.errors import ConfigError, ConfigFault, DatabaseAccessDenied, SchemaIncompatible
from supervisor.leases.pooler_check import reject_transaction_pooling

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.config.model import Config, Server

_LIMIT_S = 5.0
_MAY_CREATE = """
    SELECT NOT pg_catalog.pg_is_in_recovery()
        AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
"""
# As far as `run` needs them of a role that does not own the schema.
_MISSING_PRIVILEGES_SQL = """
    SELECT pg_catalog.format('EXECUTE on %s', p.oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'supervisor'::pg_catalog.regnamespace
        AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
    UNION ALL
    SELECT pg_catalog.format('SELECT on %s', c.oid::pg_catalog.regclass) FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'supervisor'::pg_catalog.regnamespace AND c.relkind IN ('r', 'v')
        AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
    ORDER BY 1
"""


async def try_database(server: Server, config: Config, clock: Clock) -> str:
    """Return a remark about a database that `run` would be content with.

    Raises:
        ConfigError: It cannot be connected to, or leases cannot work there.
        SupervisorError: The SQL schema keeps `run` from starting.
    """
    monitor = ConnectionMonitor(server, config.database, name=config.name, clock=clock, rng=random.Random())  # noqa: S311 - jitter
    # Behind a proxy that pools transactions, prepared statements of other clients would be in the way.
    monitor.connector = monitor.connector._replace(cached_statements=0)
    try:
        failure = await monitor.connect_once()
        if failure is not None:
            raise ConfigError(ConfigFault(str(config.path), "database.dsn", failure.reason))
        assert monitor.connected is not None  # noqa: S101 - it has connected
        if needs_node(config):
            await reject_transaction_pooling(Session(monitor, monitor.connected, clock=clock), is_thorough=True)
        return ", the database answers" + await _check_schema(monitor.connected.connection, config)
    finally:
        monitor.close()


async def _check_schema(connection: Any, config: Config) -> str:
    """Return what there is to say of the schema.

    Raises:
        SchemaIncompatible: It is newer and excludes this daemon, or older and `run` must not upgrade it, and a worker
            needs it.
        DatabaseAccessDenied: A privilege is missing that a worker needs.
        DatabaseUnavailable: The connection was lost.
    """
    files = migration_files()
    known, found = len(files), None
    try:
        applied = await applied_migrations(connection)
        found = version_of(applied)
        if needs_upgrade(applied, files, config.database.migrate):
            return await _predict_migration(connection, config, found, known)
        withheld = [row[0] for row in await connection.fetch(_MISSING_PRIVILEGES_SQL, timeout=_LIMIT_S)]
    except SchemaIncompatible as refusal:
        if needs_schema(config):
            raise
        return f"; no worker needs the SQL schema, which cannot be used ({str(refusal).removesuffix('.')})"
    except CONNECTION_ERRORS as error:
        try:
            raise_schema_error(error, found, known)
        except (DatabaseAccessDenied, SchemaIncompatible) as refusal:
            if needs_schema(config):
                raise
            return f"; no worker needs the SQL schema, which this role cannot use ({refusal.__cause__})"
    if withheld and needs_schema(config):
        more = f" and {len(withheld) - 1} more" if len(withheld) > 1 else ""
        raise DatabaseAccessDenied(f"the role needs {withheld[0]}{more}, for its leases and events")
    if found > known:
        return f"; the SQL schema has version {found}, newer than version {known} of this pgsupervisor, and lets it run"
    return ""


async def _predict_migration(connection: Any, config: Config, found: int, known: int) -> str:
    if found:
        return f"; `run` brings the SQL schema from version {found} to {known}"
    if await connection.fetchval(_MAY_CREATE, timeout=_LIMIT_S):
        return f"; `run` creates the SQL schema, version {known}"
    if needs_schema(config):
        raise DatabaseAccessDenied(
            "the SQL schema is not there, and this role cannot create it here: run `pgsupervisor migrate` with the"
            " login of a role that may (PGSUPERVISOR__DATABASE__DSN=…)"
        )
    return "; there is no SQL schema and this role cannot create it, but no worker needs it"
