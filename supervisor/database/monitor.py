"""The connection monitor: the one place of the process that knows whether the database can be used.

It holds a connection of its own, outside the pool. The connection's end is noticed at once; its heartbeat, the
daemon's only idle statement, notices a frozen peer. `monitor_policy` decides what follows; this file carries it out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn, Protocol

from supervisor.database import monitor_log, monitor_policy
from supervisor.database.check_requests import CheckRequests
from supervisor.database.connect import Connected, connect_any_host, connector_for, ping
from supervisor.database.error_class import ErrorClass, Failure, most_recoverable
from supervisor.database.monitor_policy import GiveUp, MonitorState, Outage, Retry
from supervisor.database.port_probe import PortProbe
from supervisor.errors import ConfigError, ConfigFault, ConnectAttemptsExhausted, DatabaseAccessDenied
from supervisor.journal import log_event

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import ConnectPolicy, DatabaseConfig, Server
    from supervisor.database.connect import Connector


HEARTBEAT_S = 5.0
# A thousand workers that fail in one second cause ten questions, not a thousand.
_BETWEEN_CHECKS_S = 0.1
# A demoted primary keeps its connections, a frozen peer does too: statements there would fail or hang.
_USELESS = {ErrorClass.READ_ONLY, ErrorClass.TIMED_OUT}


class DatabaseObserver(Protocol):
    """Notified when the database goes and comes, on the event loop and at once."""

    def on_down(self, failure: Failure, *, announced: bool) -> None:
        """The database is unreachable; `announced` is false when an outage merely goes on after a flap."""

    def on_up(self, *, announced: bool) -> None:
        """The database can be used (again); `announced` is false while the recovery is not yet stable."""

    def on_stable(self) -> None:
        """A recovery after flaps is stable."""

    def on_status(self) -> None:
        """Something changed that a status line shows."""


class PoolOwner(Protocol):
    """Keeps the pool in step with the monitor's connection; notified before the observer."""

    def on_down(self, failure: Failure) -> None:
        """The database is unreachable."""

    def on_reconnected(self) -> None:
        """There is a new connection, perhaps to another host."""

    def on_suspect_pool(self) -> None:
        """The monitor's connection was found useless, and every other one may be too."""


class SessionOwner(Protocol):
    """Uses the monitor's own connection: a node, whose session it is."""

    def on_connected(self, monitor: ConnectionMonitor, connected: Connected) -> None:
        """There is a new connection."""

    def on_disconnected(self, connected: Connected) -> None:
        """The monitor gives this connection up; the owner terminates it once no lease depends on it any more."""

    async def check(self, connected: Connected, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection; a routine check may be answered without asking the server."""


class ConnectionMonitor:
    """The state of one database, kept by one task.

    Attributes:
        observer: Notified of every transition; None until the monitor is in force.
        pool_owner: Likewise; the owner of the pool.
        config: `[database]`; a reload may replace it while the monitor runs.
        connector: How connections are made, for the pool too.
        state: The state of the machine in `monitor_policy`.
        connected: The monitor's own connection while it is up.
        failure: The last failed attempt of the current outage.
        outage: The current outage; kept after a recovery until that is stable.
        next_try_at_s: When the next attempt is due, while there is one.
        had_work: Whether a worker's statement succeeded since the last recovery.
        last_loss_s: When a connection was last found lost.
        last_progress_s: When the monitor's loop last made a turn, for the watchdog.
        session_owner: The node whose session the monitor's connection is; None: there is none.
        lock: Held during each statement on the monitor's connection; asyncpg refuses two at once.
    """

    def __init__(self, server: Server, config: DatabaseConfig, *, name: str, clock: Clock, rng: Random) -> None:
        self.config = config
        self.connector: Connector = connector_for(server, config, name=name)
        self.server = server
        self.observer: DatabaseObserver | None = None
        self.pool_owner: PoolOwner | None = None
        self.session_owner: SessionOwner | None = None
        self.state = MonitorState.CONNECTING
        self.connected: Connected | None = None
        self.failure: Failure | None = None
        self.outage: Outage | None = None
        self.next_try_at_s: float | None = None
        self.had_work = False
        self.last_loss_s = float("-inf")
        self.lock = asyncio.Lock()
        self._clock = clock
        self._rng = rng
        self.state_since_s = self.last_progress_s = self.up_since_s = clock.now_s()
        self._checks = CheckRequests(clock=clock)
        self._is_check_requested = False
        self._up = asyncio.Event()
        self._connected_event = asyncio.Event()
        self._probe = PortProbe(self.connector.targets.endpoints)

    async def wait_until_up(self) -> None:
        """Return as soon as the database can be used."""
        await self._up.wait()

    async def wait_until_connected(self) -> None:
        """Return as soon as the monitor has a connection; while it reconnects, no other attempt can succeed."""
        await self._connected_event.wait()

    def request_check(self) -> None:
        """Ask for a check of the connection soon: an error was seen that may mean an outage."""
        self._checks.request()

    async def check_now(self) -> bool:
        """Return whether the database is up, verified by a statement sent after this call."""
        if self.state is not MonitorState.UP:
            return False
        return await self._checks.request_and_wait()

    def is_stuck(self, now_s: float) -> bool:
        """Whether the monitor's loop has made no turn for longer than any of its deadlines explains."""
        hosts = len(self.connector.targets.endpoints)
        slack_s = 3 * HEARTBEAT_S + 3 * self.config.connect_timeout_s * (hosts + 1)
        due_s = max(self.last_progress_s, self.next_try_at_s or 0.0)
        return self.state is not MonitorState.CLOSED and now_s > due_s + slack_s

    async def connect_once(self) -> Failure | None:
        """Try to connect a single time, for a reload that validates a new database first."""
        outcome = await self._attempt()
        if not isinstance(outcome, Connected):
            return outcome
        self._on_connected(outcome)
        return None

    async def run(self) -> NoReturn:
        """Keep the state true until it is cancelled.

        Raises:
            ConnectAttemptsExhausted: The start used up its attempts.
            DatabaseAccessDenied: The server refused the login, the database or a privilege at the start.
            ConfigError: The connection string cannot work.
        """
        try:
            if self.connected is None:
                monitor_log.log_connecting(self.address, str(self.server.dsn))
                self.outage = monitor_policy.begin_start(self._clock.now_s())
                await self._connect_with_retry(self.config.startup)
            while True:
                lost = await self._watch()
                await self._handle_failure(lost, self.config.runtime)
                await self._connect_with_retry(self.config.runtime)
        finally:
            self.close()

    async def _connect_with_retry(self, policy: ConnectPolicy) -> None:
        """Attempt until one succeeds, or the policy ends it."""
        while True:
            outcome = await self._attempt()
            if isinstance(outcome, Connected):
                self._on_connected(outcome)
                return
            await self._handle_failure(outcome, policy)

    async def _attempt(self) -> Connected | Failure:
        self.next_try_at_s = None
        outcome = await connect_any_host(self.connector)
        self.last_progress_s = self._clock.now_s()
        if isinstance(outcome, Connected):
            return outcome
        await self._probe.record(outcome)
        return most_recoverable(outcome)

    async def _handle_failure(self, failure: Failure, policy: ConnectPolicy) -> None:
        outage = monitor_policy.add_failure(self.outage or monitor_policy.begin_outage(self._clock.now_s()), failure)
        self.outage, self.failure = outage, failure
        decision = monitor_policy.decide_after_failure(
            outage, failure, policy, probe_interval_s=self.config.probe_interval_s, sample=self._rng.random()
        )
        match decision:
            case Retry(delay_s):
                self._log_progress(outage, failure, delay_s)
                await self._wait_before_retry(delay_s)
            case GiveUp.ATTEMPTS_USED_UP:
                monitor_log.log_gave_up(outage, failure)
                raise ConnectAttemptsExhausted(
                    f"gave up after {outage.attempts} attempts: {failure.reason}"
                ) from failure.error
            case GiveUp.ACCESS_DENIED:
                monitor_log.log_refused(failure)
                raise DatabaseAccessDenied(failure.reason) from failure.error
            case GiveUp.MISCONFIGURED:
                raise ConfigError(ConfigFault(self.server.source, "", failure.reason)) from failure.error

    def _log_progress(self, outage: Outage, failure: Failure, delay_s: float) -> None:
        now_s = self._clock.now_s()
        due = monitor_policy.next_reminder(outage, now_s)
        if due is None and outage.was_logged and monitor_policy.has_new_cause(outage, failure.error_class):
            due = outage  # a different error is never hidden by the one before
        self.outage = due or outage
        if due and self.state is MonitorState.CONNECTING:
            monitor_log.log_still_connecting(outage, failure, now_s=now_s, next_try_s=delay_s)
        elif due:
            monitor_log.log_still_down(outage, failure, now_s=now_s, next_try_s=delay_s)

    async def _wait_before_retry(self, delay_s: float) -> None:
        """Wait for the next attempt; end the wait early when a host begins to listen."""
        due_s = self._clock.now_s() + delay_s
        self.next_try_at_s = due_s
        self._on_status()
        while (now_s := self._clock.now_s()) < due_s:
            self.last_progress_s = now_s
            probe_s = monitor_policy.probe_delay_s(
                self.outage or monitor_policy.begin_outage(now_s),
                now_s=now_s,
                due_s=due_s,
                probe_interval_s=self.config.probe_interval_s,
                sample=self._rng.random(),
            )
            await self._clock.sleep(probe_s)
            if self._clock.now_s() < due_s and await self._probe.has_new_listener():
                return

    async def _watch(self) -> Failure:
        """Watch the connection until the database is found unreachable, and return why."""
        while True:
            await self._wait_for_check()
            failure = await self._check_and_reconnect()
            self.last_progress_s = self._clock.now_s()
            if failure is not None:
                self._go_down(failure)
                self._checks.finish(is_up=False)
                return failure
            self._checks.finish(is_up=True)
            self._mark_stable()

    async def _wait_for_check(self) -> None:
        """Wait for the next heartbeat, a request for a check, or the end of the connection."""
        await self._checks.wait(HEARTBEAT_S)
        if self._clock.now_s() < self.last_progress_s + _BETWEEN_CHECKS_S:
            await self._clock.sleep(_BETWEEN_CHECKS_S)
        self._is_check_requested = self._checks.is_requested
        self._checks.start()

    async def _check_and_reconnect(self) -> Failure | None:
        """Return why the database is unreachable, or None while it is up.

        A fresh connection decides only where the monitor's own is dead; and only a connection whose recovery was
        stable is replaced on the spot, else a server that drops every connection after its handshake would be
        connected to in a hot loop.
        """
        failure = await self._check_connection()
        if failure is None:
            return None
        self.last_loss_s = self._clock.now_s()
        self._terminate()
        if self.outage is not None:
            return failure
        if failure.error_class in _USELESS and self.pool_owner is not None:
            self.pool_owner.on_suspect_pool()
        outcome = await self._attempt()
        if isinstance(outcome, Failure):
            return outcome
        self.outage = monitor_policy.begin_outage(self._clock.now_s())
        self._set_connection(outcome)
        if self.pool_owner is not None:
            self.pool_owner.on_reconnected()
        log_event("database.reconnected", address=outcome.endpoint.address)
        return None

    async def _check_connection(self) -> Failure | None:
        if self.connected is None or self.connected.connection.is_closed():
            reason = f"{self.address} dropped the connection"
            return Failure(ErrorClass.DROPPED, reason, self.address, None, ConnectionResetError(reason))
        if self.session_owner is not None:
            return await self.session_owner.check(self.connected, is_routine=not self._is_check_requested)
        async with self.lock:
            return await ping(self.connected.connection, self.connected.endpoint, self.connector)

    def _on_connected(self, connected: Connected) -> None:
        now_s = self._clock.now_s()
        is_start = self.state is MonitorState.CONNECTING
        self._set_connection(connected)
        self.state, self.state_since_s = MonitorState.UP, now_s
        if not is_start:
            self.last_loss_s = now_s  # errors of the outage may still be on their way
        outage = self.outage or monitor_policy.begin_outage(now_s)
        if is_start:
            monitor_log.log_connected(connected, outage, now_s)
        elif outage.flaps == 0:
            monitor_log.log_recovered(self.address, outage, now_s)
        if is_start and not outage.failures:
            self.outage = None  # connected at the first attempt: there are no delays to continue
        self._up.set()
        if self.pool_owner is not None:
            self.pool_owner.on_reconnected()
        if self.observer is not None:
            self.observer.on_up(announced=outage.flaps == 0)

    def _set_connection(self, connected: Connected) -> None:
        self.connected = connected
        self._connected_event.set()
        self.next_try_at_s = None
        self._probe.reset()
        self.had_work = False
        self.up_since_s = self._clock.now_s()
        connected.connection.add_termination_listener(lambda _: self.request_check())
        if self.session_owner is not None:
            self.session_owner.on_connected(self, connected)

    def _go_down(self, failure: Failure) -> None:
        now_s = self._clock.now_s()
        self.state, self.state_since_s, self.failure = MonitorState.DOWN, now_s, failure
        self.last_loss_s = now_s
        self._up.clear()
        up_for_s = now_s - self.up_since_s
        self.outage = monitor_policy.outage_after_loss(self.outage, now_s, up_for_s=up_for_s, cause=failure.error_class)
        is_news = self.outage.flaps == 0
        if is_news:
            monitor_log.log_lost(failure)
        if self.pool_owner is not None:
            self.pool_owner.on_down(failure)
        if self.observer is not None:
            self.observer.on_down(failure, announced=is_news)

    def _mark_stable(self) -> None:
        now_s = self._clock.now_s()
        if self.outage is None or not monitor_policy.is_stable(now_s - self.up_since_s, has_worked=self.had_work):
            return
        if self.outage.flaps > 0:
            monitor_log.log_recovered(self.address, self.outage, now_s)
            if self.observer is not None:
                self.observer.on_stable()
        self.outage, self.failure = None, None
        self._on_status()

    def _terminate(self) -> None:
        connected, self.connected = self.connected, None
        if connected is None:
            return
        self._connected_event.clear()
        if self.session_owner is not None:
            self.session_owner.on_disconnected(connected)
        else:
            # terminate(), not close(): close() waits for the peer, which may be frozen.
            connected.connection.terminate()

    def close(self) -> None:
        """End the monitor, whatever its state."""
        self.state = MonitorState.CLOSED
        self._up.clear()
        self._terminate()
        self._checks.finish(is_up=False)

    @property
    def address(self) -> str:
        """Where the database is: the host in use, or all that are tried."""
        if self.connected is not None:
            return self.connected.endpoint.address
        return ", ".join(endpoint.address for endpoint in self.connector.targets.endpoints)

    def _on_status(self) -> None:
        if self.observer is not None:
            self.observer.on_status()
