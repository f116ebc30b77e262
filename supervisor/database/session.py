"""The gate's connection as a node's session: what a node holds, it holds as long as this very connection lives.

Its statements are few, short and one at a time: asyncpg refuses two at once, and the gate asks here too. A statement
that does not end within its limit, or is cancelled, leaves a connection of which nobody knows what it did: it is
given up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from supervisor.database.connecting import check
from supervisor.database.error_class import ErrorClass, Failure, classify, connect_failure, may_be_connection_loss
from supervisor.database.last_words import tap
from supervisor.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.clock import Clock
    from supervisor.database.connecting import Connected
    from supervisor.database.database import Database
    from supervisor.database.gate import ConnectionMonitor

T = TypeVar("T")

# A heartbeat that is asked for as a matter of routine is answered by what the node has asked so recently.
_FRESH_S = 5.0
# However long connecting may take: trust in a lease rests on statements that are answered sooner.
_LIMIT_S = 5.0


class SessionEnded(DatabaseUnavailable):
    """The connection is gone, and with it every lock that it held."""


class Session:
    """One connection of the gate's.

    Attributes:
        link: The connection and its host.
        begun_s: When it began.
        answered_s: When the newest of its statements that was answered had been sent.
        is_over: Whether it has ended.
        failure: Why it is given up; None: it is not.
    """

    def __init__(self, gate: ConnectionMonitor, link: Connected, *, clock: Clock) -> None:
        self.monitor = gate
        self.connected = link
        self.begun_s = clock.now_s()
        self.answered_s = float("-inf")
        self.is_closed = False
        self.failure: Failure | None = None
        self._clock = clock
        self._overheard = tap(link.connection)

    async def execute(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Return the outcome of an operation on the connection, to which nobody else talks meanwhile.

        Raises:
            SessionEnded: The connection is gone, or given up because it did not answer; whether the statement was
                executed is not known.
            asyncpg.PostgresError: The statement failed; the session goes on.
        """
        connection = self.connected.connection
        async with self.monitor.mutex:
            if self.is_closed or self.failure is not None or connection.is_closed():
                raise SessionEnded("The session of this node has ended.")
            sent_s = self._clock.now_s()
            try:
                async with asyncio.timeout(self._limit_s):
                    answer = await operation(connection)
            except asyncio.CancelledError as error:
                self._fail(self._as_failure(error))
                raise
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                if classify(error) is ErrorClass.READ_ONLY:
                    self.monitor.request_check()  # it knows whether that is what the connection string asks for
                elif not isinstance(error, asyncpg.PostgresError) or may_be_connection_loss(error):
                    self._fail(self._as_failure(error))
                    raise SessionEnded(f"The session of this node has ended: {str(error) or 'no answer'}") from error
                raise
            self.answered_s = sent_s
            return answer

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Return the rows of one short statement; raises as `do` does."""
        return await self.execute(lambda connection: connection.fetch(query, *args))

    async def execute_script(self, sql: str) -> str:
        """Execute statements without arguments and without preparing them; raises as `do` does."""
        return await self.execute(lambda connection: connection.execute(sql))

    async def listen(self, channel: str, heard: Callable[..., object]) -> None:
        """Have `heard(connection, pid, channel, payload)` called for notifications; raises as `do` does."""
        await self.execute(lambda connection: connection.add_listener(channel, heard))

    async def check(self, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection, for the gate."""
        if is_routine and self.failure is None and self._clock.now_s() < self.answered_s + _FRESH_S:
            return None
        async with self.monitor.mutex:
            if self.failure is not None:
                return self.failure
            sent_s = self._clock.now_s()
            failure = await check(self.connected.connection, self.connected.endpoint, self.monitor.connector)
            if failure is None:
                self.answered_s = sent_s
            self.failure = failure
            return failure

    def end(self) -> None:
        """Note that it is over; the connection stays until `hang_up`."""
        self.is_closed = True

    def terminate(self) -> None:
        """End the connection, and with it whatever the server still takes it to hold."""
        # Never a farewell: the peer may be frozen, and a farewell waits for it.
        self.connected.connection.terminate()

    def invalidate(self, reason: str) -> None:
        """Have the gate make another connection: this one cannot serve, though it may live."""
        address = self.connected.endpoint.address
        self._fail(Failure(ErrorClass.DROPPED, f"{address}: {reason}", address, None, ConnectionError(reason)))

    @property
    def close_reason(self) -> str | None:
        """Why it has ended, as a clause; the server's own word before what the driver makes of it. None: unknown."""
        if (words := self._overheard.message) is not None:
            return f"{self.connected.endpoint.address} says: {words}"
        return self.failure.reason if self.failure is not None else None

    @property
    def _limit_s(self) -> float:
        return min(self.monitor.config.connect_timeout_s, _LIMIT_S)

    def _as_failure(self, error: BaseException) -> Failure:
        return connect_failure(error, address=self.connected.endpoint.address, limit_s=self._limit_s)

    def _fail(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self.monitor.request_check()


class SessionHolder:
    """Where a node lives: on the connection of the gate in force, whichever that is.

    Attributes:
        session: The session of the moment.
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
        # The one that ended last: who heard of its end hangs up.
        self._last: Session | None = None
        self._clock = clock
        self._on_begin = on_begin
        self._on_end = on_end
        database.attach_session(self)

    def on_connected(self, gate: ConnectionMonitor, link: Connected) -> None:
        """Begin a session on a new connection."""
        self._end("its session was replaced by another one")
        session = self.session = Session(gate, link, clock=self._clock)
        link.connection.add_termination_listener(lambda _: self._terminated(session))
        self._on_begin()

    def on_disconnected(self, link: Connected) -> None:
        """End the session of a connection that the gate gives up; whoever hears of that hangs up."""
        if self.session is not None and self.session.connected is link:
            self._terminated(self.session)
        elif self._last is None or self._last.connected is not link:
            link.connection.terminate()

    async def check(self, link: Connected, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection."""
        if self.session is None or self.session.connected is not link:
            reason = "the session on this connection has ended"
            return Failure(ErrorClass.DROPPED, reason, link.endpoint.address, None, ConnectionResetError(reason))
        return await self.session.check(is_routine=is_routine)

    def _terminated(self, session: Session) -> None:
        if self.session is session:
            why = session.close_reason
            self._end("the session that held it has ended" + (f" ({why})" if why else ""))

    def _end(self, reason: str) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._last = session
            session.end()
            self._on_end(session, reason)
