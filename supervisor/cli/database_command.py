"""A command's one connection to the configured database."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING, Any

from supervisor.clock import SystemClock
from supervisor.config.model import Dsn, EmbeddedStore, Server
from supervisor.database.error_class import CONNECTION_ERRORS, ErrorClass, classify
from supervisor.database.monitor import ConnectionMonitor
from supervisor.database.schema.migrate import raise_schema_error
from supervisor.database.schema.version import applied_migrations, migration_files, needs_upgrade
from supervisor.errors import (
    ConfigError,
    ConfigFault,
    DatabaseAccessDenied,
    DatabaseUnavailable,
    SchemaIncompatible,
    SupervisorError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from supervisor.config.model import Config
    from supervisor.database.error_class import Failure

SCHEMA_TOO_OLD = "The SQL schema is missing or too old: run `pgsupervisor migrate`."
_CLOSE_TIMEOUT_S = 1.0
_ONLY_WHILE = "it runs only while its daemon does, and accepts only that daemon's user"


@contextlib.asynccontextmanager
async def connect_once(config: Config) -> AsyncIterator[Any]:
    """Give a connection to the configured database, tried once at each of its hosts.

    Raises:
        ConfigError: The connection string cannot work.
        DatabaseAccessDenied: The server refuses the login, the database or a privilege.
        DatabaseUnavailable: It cannot be reached, or the connection was lost.
    """
    with _server_of(config) as server:
        # A command makes one attempt; nothing of it is random.
        rng = random.Random(0)  # noqa: S311
        monitor = ConnectionMonitor(server, config.database, name=config.name, clock=SystemClock(), rng=rng)
        # Behind a proxy that pools transactions, prepared statements of other clients would be in the way.
        monitor.connector = monitor.connector._replace(cached_statements=0)
        failure = await monitor.connect_once()
        if failure is not None:
            raise _error_for(failure, config) from failure.error
        assert monitor.connected is not None  # noqa: S101 - it has connected
        connection = monitor.connected.connection
        try:
            yield connection
        finally:
            with contextlib.suppress(*CONNECTION_ERRORS):
                await connection.close(timeout=_CLOSE_TIMEOUT_S)
            monitor.close()


@contextlib.asynccontextmanager
async def connect_to_schema(config: Config) -> AsyncIterator[Any]:
    """Give a connection to the configured database, whose SQL schema fits this version.

    Raises:
        ConfigError: The connection string cannot work.
        SchemaIncompatible: The schema is missing, older, or excludes this version.
        DatabaseAccessDenied: The server refuses the login, the database or a privilege.
        DatabaseUnavailable: It cannot be reached, or the connection was lost.
    """
    async with connect_once(config) as connection:
        await _check_schema(connection)
        yield connection


async def _check_schema(connection: Any) -> None:
    files = migration_files()
    try:
        applied = await applied_migrations(connection)
    except CONNECTION_ERRORS as error:
        # A role that may append need not be able to read the version.
        if classify(error) is not ErrorClass.ACCESS_DENIED:
            raise_schema_error(error, None, len(files))
        return
    if needs_upgrade(applied, files, "auto"):
        raise SchemaIncompatible(SCHEMA_TOO_OLD)


def _error_for(failure: Failure, config: Config) -> SupervisorError:
    if isinstance(config.database.target, EmbeddedStore):
        return DatabaseUnavailable(f"{_embedded(config)} cannot be reached ({failure.reason}); {_ONLY_WHILE}")
    match failure.error_class:
        case ErrorClass.MISCONFIGURED:
            return ConfigError(ConfigFault(str(config.path), "database.dsn", failure.reason))
        case ErrorClass.ACCESS_DENIED:
            return DatabaseAccessDenied(f"{config.path}: database.dsn: {failure.reason}")
        case _:
            return DatabaseUnavailable(f"{config.path}: database.dsn: {failure.reason}")


@contextlib.contextmanager
def _server_of(config: Config) -> Iterator[Server]:
    match config.database.target:
        case Server() as server:
            yield server
        case EmbeddedStore() as store:
            folder = _open_folder(store, config)
            try:
                # Short enough for a socket's path, wherever the store is.
                text = f"postgresql://postgres@/postgres?port=5432&host=/proc/self/fd/{folder}"
                yield Server(Dsn(text, redacted=text), source=_embedded(config))
            finally:
                os.close(folder)


def _open_folder(store: EmbeddedStore, config: Config) -> int:
    if store.ephemeral:
        raise DatabaseUnavailable(f"{config.path}: only its daemon's workers can reach an ephemeral store")
    try:
        return os.open(store.path or config.daemon.state_dir / "postgres", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DatabaseUnavailable(f"{_embedded(config)} cannot be reached ({error.strerror}); {_ONLY_WHILE}") from error


def _embedded(config: Config) -> str:
    target = config.database.target
    path = target.path if isinstance(target, EmbeddedStore) else None
    return f"{config.path}: the embedded store in {path or config.daemon.state_dir / 'postgres'}"
