"""A connection of a command's own to the configured database, and what its failures mean for the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import TYPE_CHECKING, Any

import asyncpg

from supervisor.cli.output import complain
from supervisor.cli.own_configuration import read_as_its_unit
from supervisor.clock import SystemClock
from supervisor.config.finding import find_config
from supervisor.config.model import Dsn, EmbeddedStore, Server
from supervisor.database.error_class import ErrorClass
from supervisor.database.monitor import ConnectionMonitor
from supervisor.errors import (
    ConfigError,
    ConfigFault,
    ConnectAttemptsExhausted,
    DatabaseAccessDenied,
    DatabaseUnavailable,
    InvalidEvent,
    SchemaIncompatible,
    SupervisorError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from supervisor.config.model import Config
    from supervisor.database.error_class import Failure

USAGE = 64
_SOFTWARE = 70
# As `run` does it, where they can happen there.
_STATUS: dict[type[SupervisorError], int] = {
    InvalidEvent: USAGE,
    DatabaseUnavailable: 69,
    ConnectAttemptsExhausted: 69,
    DatabaseAccessDenied: 77,
    SchemaIncompatible: 78,
    ConfigError: 78,
}
_FAREWELL_S = 1.0
_ONLY_WHILE = "it runs only while its daemon does, and lets nobody in but their user"


def carry_out(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work and return its exit status; an error becomes a sentence on stderr."""
    try:
        return asyncio.run(work)
    except SupervisorError as error:
        complain(str(error))
        return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), _SOFTWARE)


def configuration(config_path: str | None) -> Config:
    """Return the configuration that a command line means.

    Raises:
        ConfigError: There is none, or it is wrong.
    """
    return read_as_its_unit(find_config(config_path, os.environ))


@contextlib.asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Any]:
    """Give a connection to the configured database, tried once at each of its hosts.

    Raises:
        ConfigError: The connection string cannot work.
        DatabaseAccessDenied: The server refuses the login, the database or a privilege.
        DatabaseUnavailable: It cannot be reached, or the connection was lost.
    """
    with _server_of(config) as server:
        # The gate of a command makes one attempt; nothing of it is random.
        gate = ConnectionMonitor(server, config.database, name=config.name, clock=SystemClock(), rng=random.Random(0))  # noqa: S311
        # What others have prepared behind a proxy that pools transactions would be in the way.
        gate.connector = gate.connector._replace(cached_statements=0)
        failure = await gate.connect_once()
        if failure is not None:
            raise _error_for(failure, config) from failure.error
        assert gate.connected is not None  # noqa: S101 - it has connected
        connection = gate.connected.connection
        try:
            yield connection
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=_FAREWELL_S)
        finally:
            gate.close()


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
        raise DatabaseUnavailable(f"{config.path}: an ephemeral store is reached by its daemon's workers alone")
    try:
        return os.open(store.path or config.daemon.state_dir / "postgres", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DatabaseUnavailable(f"{_embedded(config)} cannot be reached ({error.strerror}); {_ONLY_WHILE}") from error


def _embedded(config: Config) -> str:
    target = config.database.target
    path = target.path if isinstance(target, EmbeddedStore) else None
    return f"{config.path}: the embedded store in {path or config.daemon.state_dir / 'postgres'}"
