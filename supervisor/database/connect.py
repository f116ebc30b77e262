"""One full attempt to connect: every host has its own deadline, and the first that answers a statement wins."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from supervisor.config.dsn import ConnectTargets, Endpoint, parse_targets, secrets_of
from supervisor.database.asyncpg_private import keep_alive
from supervisor.database.error_class import ErrorClass, Failure, connect_failure
from supervisor.journal import register_secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.config.model import DatabaseConfig, Server


# A hung first host must not delay the second until its deadline (scenario 3); a healthy first one is
# nearly always faster than this and keeps its preference.
HEAD_START_S = 0.25
# One statement for both: is it alive, and is it what the connection string asks for?
HEARTBEAT = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'"


class Connected(NamedTuple):
    """A connection that has answered a statement."""

    connection: asyncpg.Connection
    endpoint: Endpoint


class Connector(NamedTuple):
    """Everything a connection needs but the host.

    Attributes:
        dsn: The connection string with its secrets.
        targets: The same, taken apart.
        connect_timeout_s: The deadline of one host.
        command_timeout_s: The deadline of one statement, 0: none.
        application_name: What the server shows in `pg_stat_activity`.
        cached_statements: How many prepared statements a connection keeps, None: asyncpg's default. 0 prepares none
            that outlasts its use, so that it works through a proxy that pools transactions too.
    """

    dsn: str
    targets: ConnectTargets
    connect_timeout_s: float
    command_timeout_s: float
    application_name: str
    cached_statements: int | None = None

    async def connect(self, endpoint: Endpoint, **options: Any) -> asyncpg.Connection:
        """Open a connection to one host, or raise what the driver raises."""
        settings = {} if self.targets.application_name else {"application_name": self.application_name}
        if self.cached_statements is not None:
            options["statement_cache_size"] = self.cached_statements
        try:
            connection: asyncpg.Connection = await asyncpg.connect(
                self.dsn or None,
                host=endpoint.host,
                port=endpoint.port,
                timeout=self.connect_timeout_s,
                command_timeout=self.command_timeout_s or None,
                server_settings=settings,
                **options,
            )
        except FileNotFoundError as error:
            if endpoint.is_socket:
                raise
            # It is not the server's socket, so a server that starts would not change it.
            raise asyncpg.ClientConfigurationError(
                "a file that it names does not exist, such as sslrootcert"
            ) from error
        keep_alive(connection)
        return connection


def connector_for(server: Server, config: DatabaseConfig, *, name: str) -> Connector:
    """Return what it takes to connect to `server`; `name` is the daemon's."""
    dsn = server.dsn.secret_value()
    for secret in secrets_of(dsn, os.environ):
        register_secret(secret)
    return Connector(
        dsn, parse_targets(dsn, os.environ), config.connect_timeout_s, config.command_timeout_s, f"pgsupervisor {name}"
    )


async def connect_any_host(connector: Connector) -> Connected | list[Failure]:
    """Try every host of the connection string once.

    Returns:
        The first connection that answers a statement, or the failures, at least one.
    """
    endpoints = connector.targets.endpoints
    if connector.targets.target_session_attrs == "prefer-standby" and len(endpoints) > 1:
        outcome = await _race_hosts(connector, endpoints, wanted="standby")
        return outcome if isinstance(outcome, Connected) else await _race_hosts(connector, endpoints, wanted="any")
    return await _race_hosts(connector, endpoints, wanted=connector.targets.target_session_attrs)


async def _race_hosts(connector: Connector, endpoints: Sequence[Endpoint], *, wanted: str) -> Connected | list[Failure]:
    if len(endpoints) == 1:
        outcome = await _try_one(connector, endpoints[0], wanted)
        return outcome if isinstance(outcome, Connected) else [outcome]
    running: list[asyncio.Task[Connected | Failure]] = []
    winner: Connected | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for endpoint in endpoints:
                running.append(
                    group.create_task(_try_one(connector, endpoint, wanted), name=f"connect {endpoint.address}")
                )
                await asyncio.wait(running[-1:], timeout=HEAD_START_S)
                if winner := _first_connected(running):
                    break
            while winner is None and (pending := [task for task in running if not task.done()]):
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                winner = _first_connected(running)
            for task in running:
                task.cancel()
    finally:
        for task in running:
            _close_loser(task, winner)
    return winner or [outcome for task in running if isinstance(outcome := task.result(), Failure)]


def _first_connected(tasks: Sequence[asyncio.Task[Connected | Failure]]) -> Connected | None:
    for task in tasks:
        if task.done() and not task.cancelled() and isinstance(outcome := task.result(), Connected):
            return outcome
    return None


def _close_loser(task: asyncio.Task[Connected | Failure], winner: Connected | None) -> None:
    if task.done() and not task.cancelled() and task.exception() is None:
        outcome = task.result()
        if isinstance(outcome, Connected) and outcome is not winner:
            outcome.connection.terminate()


async def _try_one(connector: Connector, endpoint: Endpoint, wanted: str) -> Connected | Failure:
    try:
        connection = await connector.connect(endpoint, target_session_attrs=wanted)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this attempt's outcome
        return connect_failure(error, address=endpoint.address, limit_s=connector.connect_timeout_s)
    failure: Failure | None = None
    try:
        failure = await ping(connection, endpoint, connector)
    except BaseException:
        connection.terminate()
        raise
    if failure is None:
        return Connected(connection, endpoint)
    connection.terminate()
    return failure


async def ping(connection: asyncpg.Connection, endpoint: Endpoint, connector: Connector) -> Failure | None:
    """Check a connection with a statement: None, or what is wrong with it.

    A handshake proves little: a proxy may complete it for a dead server, and a demoted primary stays connected
    although it can no longer write (25006).
    """
    limit_s = connector.connect_timeout_s
    try:
        in_recovery, read_only = await connection.fetchrow(HEARTBEAT, timeout=limit_s)  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 - whatever it is, this connection did not answer
        return connect_failure(error, address=endpoint.address, limit_s=limit_s)
    unfit = in_recovery or (read_only and connector.targets.target_session_attrs == "read-write")
    if connector.targets.wants_primary and unfit:
        wanted = connector.targets.target_session_attrs
        reason = f"{endpoint.address} is read-only, and the connection string asks for a {wanted} server"
        return Failure(ErrorClass.READ_ONLY, reason, endpoint.address, None, ConnectionError(reason))
    return None
