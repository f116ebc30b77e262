"""The monitor's connection as a node's session: what a node holds, it holds as long as this very connection lives.

Its statements are few, short and one at a time: asyncpg refuses two at once, and the monitor sends statements here too.
After a statement that did not end within its timeout, or was cancelled, the state of the connection is unknown: it is
invalidated.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from supervisor.database.connect import ping
from supervisor.database.error_class import (
    CONNECTION_ERRORS,
    ErrorClass,
    Failure,
    classify,
    connect_failure,
    may_be_connection_loss,
)
from supervisor.database.fatal_message import tap
from supervisor.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.clock import Clock
    from supervisor.database.connect import Connected
    from supervisor.database.database import Database
    from supervisor.database.monitor import ConnectionMonitor

T = TypeVar("T")

# A routine heartbeat needs no statement while one of the node's was answered so recently.
_FRESH_S = 5.0
# Shorter than connect_timeout may be: trust in a lease depends on statements that are answered sooner.
_TIMEOUT_S = 5.0


class SessionEnded(DatabaseUnavailable):
    """The connection is gone, and with it every lock that it held."""


class Session:
    """One connection of the monitor.

    Attributes:
        monitor: The monitor.
        connected: The connection and its host.
        started_s: When it began.
        answered_s: When the newest of its statements that was answered had been sent.
        is_closed: Whether it has ended.
        failure: Why it is invalid; None: it is valid.
    """

    def __init__(self, monitor: ConnectionMonitor, connected: Connected, *, clock: Clock) -> None:
        self.monitor = monitor
        self.connected = connected
        self.started_s = clock.now_s()
        self.answered_s = float("-inf")
        self.is_closed = False
        self.failure: Failure | None = None
        self._clock = clock
        self._fatal_message = tap(connected.connection)

    async def execute(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Return the outcome of an operation on the connection, with no other statement on it meanwhile.

        Raises:
            SessionEnded: The connection is gone, or given up because it did not answer; whether the statement was
                executed is not known.
            asyncpg.PostgresError: The statement failed; the session goes on.
        """
        connection = self.connected.connection
        async with self.monitor.lock:
            if self.is_closed or self.failure is not None or connection.is_closed():
                raise SessionEnded("The session of this node has ended.")
            sent_s = self._clock.now_s()
            try:
                async with asyncio.timeout(self._limit_s):
                    answer = await operation(connection)
            except asyncio.CancelledError as error:
                self._fail(self._as_failure(error))
                raise
            except CONNECTION_ERRORS as error:
                if classify(error) is ErrorClass.READ_ONLY:
                    self.monitor.request_check()  # it knows whether that is what the connection string asks for
                elif not isinstance(error, asyncpg.PostgresError) or may_be_connection_loss(error):
                    self._fail(self._as_failure(error))
                    raise SessionEnded(f"The session of this node has ended: {str(error) or 'no answer'}") from error
                raise
            self.answered_s = sent_s
            return answer

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Return the rows of one short statement; raises as `execute` does."""
        return await self.execute(lambda connection: connection.fetch(query, *args))

    async def execute_script(self, sql: str) -> str:
        """Execute statements without arguments and without preparing them; raises as `execute` does."""
        return await self.execute(lambda connection: connection.execute(sql))

    async def listen(self, channel: str, callback: Callable[..., object]) -> None:
        """Have `callback(connection, pid, channel, payload)` called for notifications; raises as `execute` does."""
        await self.execute(lambda connection: connection.add_listener(channel, callback))

    async def check(self, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection, for the monitor."""
        if is_routine and self.failure is None and self._clock.now_s() < self.answered_s + _FRESH_S:
            return None
        async with self.monitor.lock:
            if self.failure is not None:
                return self.failure
            sent_s = self._clock.now_s()
            failure = await ping(self.connected.connection, self.connected.endpoint, self.monitor.connector)
            if failure is None:
                self.answered_s = sent_s
            self.failure = failure
            return failure

    def end(self) -> None:
        """Note that the session is over; the connection stays until `terminate`."""
        self.is_closed = True

    def terminate(self) -> None:
        """End the connection, and with it whatever the server still takes it to hold."""
        # terminate(), not close(): close() waits for the peer, which may be frozen.
        self.connected.connection.terminate()

    def invalidate(self, reason: str) -> None:
        """Have the monitor make another connection: this one cannot serve, although it may be alive."""
        address = self.connected.endpoint.address
        self._fail(Failure(ErrorClass.DROPPED, f"{address}: {reason}", address, None, ConnectionError(reason)))

    @property
    def close_reason(self) -> str | None:
        """Why it has ended, as a clause: the server's message, else the driver's error. None: unknown."""
        if (message := self._fatal_message.message) is not None:
            return f"{self.connected.endpoint.address} says: {message}"
        return self.failure.reason if self.failure is not None else None

    @property
    def _limit_s(self) -> float:
        return min(self.monitor.config.connect_timeout_s, _TIMEOUT_S)

    def _as_failure(self, error: BaseException) -> Failure:
        return connect_failure(error, address=self.connected.endpoint.address, limit_s=self._limit_s)

    def _fail(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self.monitor.request_check()


class SessionHolder:
    """The current session of a node: the connection of the monitor in force, whichever that is.

    Attributes:
        session: None while there is no connection.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        on_begin: Callable[[], object],
        on_end: Callable[[Session, str], object],
    ) -> None:
        self.session: Session | None = None
        # The one that ended last: `on_end` terminates it.
        self._ended_last: Session | None = None
        self._clock = clock
        self._on_begin = on_begin
        self._on_end = on_end
        database.attach_session(self)

    def on_connected(self, monitor: ConnectionMonitor, connected: Connected) -> None:
        """Begin a session on a new connection."""
        self._end("its session was replaced by another one")
        session = self.session = Session(monitor, connected, clock=self._clock)
        connected.connection.add_termination_listener(lambda _: self._terminated(session))
        self._on_begin()

    def on_disconnected(self, connected: Connected) -> None:
        """End the session of a connection that the monitor gives up; `on_end` terminates the connection."""
        if self.session is not None and self.session.connected is connected:
            self._terminated(self.session)
        elif self._ended_last is None or self._ended_last.connected is not connected:
            connected.connection.terminate()

    async def check(self, connected: Connected, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection."""
        if self.session is None or self.session.connected is not connected:
            reason = "the session on this connection has ended"
            return Failure(ErrorClass.DROPPED, reason, connected.endpoint.address, None, ConnectionResetError(reason))
        return await self.session.check(is_routine=is_routine)

    def _terminated(self, session: Session) -> None:
        if self.session is session:
            why = session.close_reason
            self._end("the session that held it has ended" + (f" ({why})" if why else ""))

    def _end(self, reason: str) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._ended_last = session
            session.end()
            self._on_end(session, reason)
