"""One full attempt to connect: every host has its deadline, and the first that proves itself wins."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from supervisor.database.endpoint import Endpoint, Route, route_of, secrets_of
from supervisor.database.error_class import ErrorClass, Failure, connect_failure
from supervisor.journal import register_secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.config.model import DatabaseConfig, Server

# A hung first host must not delay the second until its deadline (scenario 3); a healthy first one is
# nearly always faster than this and keeps its preference.
HEAD_START_S = 0.25
# Notices in about 12 s that the peer's machine is gone, where the kernel's default is two hours.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 6), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
_USER_TIMEOUT_MS = 12_000
# One statement for both: is it alive, and is it what the connection string asks for?
HEARTBEAT = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'"


class Connected(NamedTuple):
    """A connection that has proven itself with a statement."""

    connection: asyncpg.Connection
    endpoint: Endpoint


class Connector(NamedTuple):
    """Everything a connection needs but the host.

    Attributes:
        dsn: The connection string with its secrets.
        route: The same, taken apart.
        connect_timeout_s: The deadline of one host.
        command_timeout_s: The deadline of one statement, 0: none.
        application_name: What the server shows in `pg_stat_activity`.
        cached_statements: How many prepared statements a connection keeps, None: asyncpg's default. 0 prepares none
            that outlasts its use, so that it works through a proxy that pools transactions too.
    """

    dsn: str
    route: Route
    connect_timeout_s: float
    command_timeout_s: float
    application_name: str
    cached_statements: int | None = None

    async def connect(self, endpoint: Endpoint, **options: Any) -> asyncpg.Connection:
        """Open a connection to one host, or raise what the driver raises."""
        settings = {} if self.route.application_name else {"application_name": self.application_name}
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
            # It cannot be the server's socket, then, and no server that comes will mend it.
            raise asyncpg.ClientConfigurationError(
                "a file that it names does not exist, such as sslrootcert"
            ) from error
        _keep_alive(connection)
        return connection


def connector_for(server: Server, config: DatabaseConfig, *, name: str) -> Connector:
    """Return what it takes to connect to `server`; `name` is the daemon's."""
    dsn = server.dsn.secret_value()
    for secret in secrets_of(dsn, os.environ):
        register_secret(secret)
    return Connector(
        dsn, route_of(dsn, os.environ), config.connect_timeout_s, config.command_timeout_s, f"pgsupervisor {name}"
    )


def _keep_alive(connection: asyncpg.Connection) -> None:
    # asyncpg has no option for keepalives.
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        peer.setsockopt(socket.IPPROTO_TCP, option, value)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


async def attempt(dialer: Connector) -> Connected | list[Failure]:
    """Try every host of the connection string once.

    Returns:
        The first connection that answers a statement, or the failures, at least one.
    """
    endpoints = dialer.route.endpoints
    if dialer.route.wanted == "prefer-standby" and len(endpoints) > 1:
        outcome = await _race(dialer, endpoints, wanted="standby")
        return outcome if isinstance(outcome, Connected) else await _race(dialer, endpoints, wanted="any")
    return await _race(dialer, endpoints, wanted=dialer.route.wanted)


async def _race(dialer: Connector, endpoints: Sequence[Endpoint], *, wanted: str) -> Connected | list[Failure]:
    if len(endpoints) == 1:
        outcome = await _try_one(dialer, endpoints[0], wanted)
        return outcome if isinstance(outcome, Connected) else [outcome]
    running: list[asyncio.Task[Connected | Failure]] = []
    winner: Connected | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for endpoint in endpoints:
                running.append(group.create_task(_try_one(dialer, endpoint, wanted), name=f"dial {endpoint.address}"))
                await asyncio.wait(running[-1:], timeout=HEAD_START_S)
                if winner := _first_link(running):
                    break
            while winner is None and (pending := [task for task in running if not task.done()]):
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                winner = _first_link(running)
            for task in running:
                task.cancel()
    finally:
        for task in running:
            _hang_up_loser(task, winner)
    return winner or [outcome for task in running if isinstance(outcome := task.result(), Failure)]


def _first_link(tasks: Sequence[asyncio.Task[Connected | Failure]]) -> Connected | None:
    for task in tasks:
        if task.done() and not task.cancelled() and isinstance(outcome := task.result(), Connected):
            return outcome
    return None


def _hang_up_loser(task: asyncio.Task[Connected | Failure], winner: Connected | None) -> None:
    if task.done() and not task.cancelled() and task.exception() is None:
        outcome = task.result()
        if isinstance(outcome, Connected) and outcome is not winner:
            outcome.connection.terminate()


async def _try_one(dialer: Connector, endpoint: Endpoint, wanted: str) -> Connected | Failure:
    try:
        connection = await dialer.connect(endpoint, target_session_attrs=wanted)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this attempt's outcome
        return connect_failure(error, address=endpoint.address, limit_s=dialer.connect_timeout_s)
    failure: Failure | None = None
    try:
        failure = await check(connection, endpoint, dialer)
    except BaseException:
        connection.terminate()
        raise
    if failure is None:
        return Connected(connection, endpoint)
    connection.terminate()
    return failure


async def check(connection: asyncpg.Connection, endpoint: Endpoint, dialer: Connector) -> Failure | None:
    """Ask a connection for a sign of life: None, or what is wrong with it.

    A handshake proves little: a proxy may shake hands for a dead server, and a demoted primary stays
    connected although it can no longer write (25006).
    """
    limit_s = dialer.connect_timeout_s
    try:
        in_recovery, read_only = await connection.fetchrow(HEARTBEAT, timeout=limit_s)  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 - whatever it is, this connection did not answer
        return connect_failure(error, address=endpoint.address, limit_s=limit_s)
    unfit = in_recovery or (read_only and dialer.route.wanted == "read-write")
    if dialer.route.wants_primary and unfit:
        reason = f"{endpoint.address} is read-only, and the connection string asks for a {dialer.route.wanted} server"
        return Failure(ErrorClass.READ_ONLY, reason, endpoint.address, None, ConnectionError(reason))
    return None
