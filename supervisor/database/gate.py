"""The gate: the one place of the process that knows whether the database is there.

It holds a connection of its own, outside the pool. Its loss is noticed at once; its heartbeat, the
daemon's only idle statement, notices a peer that froze. What to do about it is decided in
`gate_state.py`; this file only carries it out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from supervisor.database import gate_entries, gate_state
from supervisor.database.connecting import Connected, attempt, check, connector_for
from supervisor.database.error_class import ErrorClass, Failure, most_recoverable
from supervisor.database.gate_listener import NullObserver
from supervisor.database.gate_state import Final, MonitorState, Outage, TryAgain
from supervisor.database.lookout import Lookout
from supervisor.database.suspicion import Suspicion
from supervisor.errors import ConfigError, ConfigFault, ConnectAttemptsExhausted, DatabaseAccessDenied
from supervisor.journal import log_event

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.config.model import ConnectPolicy, DatabaseConfig, Server
    from supervisor.database.connecting import Connector
    from supervisor.database.gate_listener import MonitorObserver, SessionOwner

HEARTBEAT_S = 5.0
# A thousand workers that fail in one second cause ten questions, not a thousand.
_BETWEEN_CHECKS_S = 0.1
# A demoted primary keeps its connections, a frozen peer does too: statements there would fail or hang.
_USELESS = {ErrorClass.READ_ONLY, ErrorClass.TIMED_OUT}


class ConnectionMonitor:
    """The state of one database, kept by one task.

    Attributes:
        listener: Who hears of its moves; nobody until it is put in force.
        config: `[database]`; a reload may replace it while the gate runs.
        dialer: How connections are made, for the pool too.
        state: Where the machine of `gate_state.py` stands.
        link: The gate's own connection while it is up.
        failure: The last failed attempt of the current outage.
        outage: The current outage; kept after a recovery until that has proven itself.
        next_try_at_s: When the next attempt is due, while there is one.
        has_worked: Whether a worker's statement succeeded since the last recovery.
        disturbed_at_s: When a connection was last found lost.
        turned_at_s: When the gate's loop last turned, for the watchdog.
        resident: The node that has made the gate's connection its session; None: there is none.
        mutex: Held during each statement on the gate's connection; asyncpg refuses two at once.
    """

    def __init__(self, server: Server, config: DatabaseConfig, *, name: str, clock: Clock, rng: Random) -> None:
        self.config = config
        self.connector: Connector = connector_for(server, config, name=name)
        self.server = server
        self.listener: MonitorObserver = NullObserver()
        self.state = MonitorState.CONNECTING
        self.connected: Connected | None = None
        self.failure: Failure | None = None
        self.outage: Outage | None = None
        self.next_try_at_s: float | None = None
        self.has_worked = False
        self.disturbed_at_s = float("-inf")
        self.session_owner: SessionOwner | None = None
        self.mutex = asyncio.Lock()
        self._clock = clock
        self._rng = rng
        self.state_since_s = self.turned_at_s = self.up_since_s = clock.now_s()
        self._suspicion = Suspicion(clock=clock)
        self._is_suspected = False
        self._up = asyncio.Event()
        self._linked = asyncio.Event()
        self._lookout = Lookout(self.connector.route.endpoints)

    # What others ask

    async def wait_until_up(self) -> None:
        """Return as soon as the database is there."""
        await self._up.wait()

    async def wait_until_linked(self) -> None:
        """Return as soon as the gate has a connection; while it makes one anew, nobody else needs to try."""
        await self._linked.wait()

    def request_check(self) -> None:
        """Have the connection checked soon: somebody saw an error that may mean an outage."""
        self._suspicion.rouse()

    async def check_now(self) -> bool:
        """Return whether the database is up, found out by a statement sent after this call."""
        if self.state is not MonitorState.UP:
            return False
        return await self._suspicion.ask()

    def is_stuck(self, now_s: float) -> bool:
        """Whether the gate's loop has not turned for longer than any of its deadlines explains."""
        hosts = len(self.connector.route.endpoints)
        slack_s = 3 * HEARTBEAT_S + 3 * self.config.connect_timeout_s * (hosts + 1)
        due_s = max(self.turned_at_s, self.next_try_at_s or 0.0)
        return self.state is not MonitorState.CLOSED and now_s > due_s + slack_s

    # The loop

    async def connect_once(self) -> Failure | None:
        """Try to connect a single time, for a reload that must prove a new database first."""
        outcome = await self._attempt()
        if not isinstance(outcome, Connected):
            return outcome
        self._arrive(outcome)
        return None

    async def run(self) -> NoReturn:
        """Keep the state true, for ever.

        Raises:
            ConnectAttemptsExhausted: The start used up its attempts.
            DatabaseAccessDenied: The server refused the start, finally.
            ConfigError: The connection string cannot work.
        """
        try:
            if self.connected is None:
                gate_entries.tell_connecting(self.address, str(self.server.dsn))
                self.outage = gate_state.begin_start(self._clock.now_s())
                await self._campaign(self.config.startup)
            while True:
                lost = await self._hold()
                await self._obey(lost, self.config.runtime)
                await self._campaign(self.config.runtime)
        finally:
            self.close()

    async def _campaign(self, policy: ConnectPolicy) -> None:
        """Attempt until it works, or the policy ends it."""
        while True:
            outcome = await self._attempt()
            if isinstance(outcome, Connected):
                self._arrive(outcome)
                return
            await self._obey(outcome, policy)

    async def _attempt(self) -> Connected | Failure:
        self.next_try_at_s = None
        outcome = await attempt(self.connector)
        self.turned_at_s = self._clock.now_s()
        if isinstance(outcome, Connected):
            return outcome
        await self._lookout.learn(outcome)
        return most_recoverable(outcome)

    async def _obey(self, failure: Failure, policy: ConnectPolicy) -> None:
        outage = gate_state.count_failure(self.outage or gate_state.begin_outage(self._clock.now_s()), failure)
        self.outage, self.failure = outage, failure
        verdict = gate_state.judge_failure(
            outage, failure, policy, probe_interval_s=self.config.probe_interval_s, sample=self._rng.random()
        )
        match verdict:
            case TryAgain(delay_s):
                self._remind(outage, failure, delay_s)
                await self._pause(delay_s)
            case Final.GIVE_UP:
                gate_entries.tell_gave_up(outage, failure)
                raise ConnectAttemptsExhausted(
                    f"gave up after {outage.attempts} attempts: {failure.reason}"
                ) from failure.error
            case Final.REFUSE:
                gate_entries.tell_refused(failure)
                raise DatabaseAccessDenied(failure.reason) from failure.error
            case Final.MISCONFIGURED:
                raise ConfigError(ConfigFault(self.server.source, "", failure.reason)) from failure.error

    def _remind(self, outage: Outage, failure: Failure, delay_s: float) -> None:
        now_s = self._clock.now_s()
        due = gate_state.remind(outage, now_s)
        if due is None and outage.is_told and gate_state.has_new_cause(outage, failure.error_class):
            due = outage  # a different error is never swallowed by the one before
        self.outage = due or outage
        if due and self.state is MonitorState.CONNECTING:
            gate_entries.tell_still_connecting(outage, failure, now_s=now_s, next_try_s=delay_s)
        elif due:
            gate_entries.tell_still_down(outage, failure, now_s=now_s, next_try_s=delay_s)

    async def _pause(self, delay_s: float) -> None:
        """Wait for the next attempt, but go early when something begins to listen."""
        due_s = self._clock.now_s() + delay_s
        self.next_try_at_s = due_s
        self.listener.on_status()
        while (now_s := self._clock.now_s()) < due_s:
            self.turned_at_s = now_s
            look_s = gate_state.check_delay(
                self.outage or gate_state.begin_outage(now_s),
                now_s=now_s,
                due_s=due_s,
                probe_interval_s=self.config.probe_interval_s,
                sample=self._rng.random(),
            )
            await self._clock.sleep(look_s)
            if self._clock.now_s() < due_s and await self._lookout.begins_to_accept():
                return

    async def _hold(self) -> Failure:
        """Watch over the connection until the database is found to be away, and return why."""
        while True:
            await self._rest()
            failure = await self._lost()
            self.turned_at_s = self._clock.now_s()
            if failure is not None:
                self._go_down(failure)
                self._suspicion.confirm()
                return failure
            self._suspicion.dispel()
            self._settle()

    async def _rest(self) -> None:
        """Wait for the next heartbeat, a suspicion or the end of the connection."""
        await self._suspicion.wait(HEARTBEAT_S)
        if self._clock.now_s() < self.turned_at_s + _BETWEEN_CHECKS_S:
            await self._clock.sleep(_BETWEEN_CHECKS_S)
        self._is_suspected = self._suspicion.is_raised
        self._suspicion.begin()

    async def _lost(self) -> Failure | None:
        """Return why the database is away, or None while it is there.

        Only where the own connection is dead does a fresh one decide; and only a connection that is
        not on probation is replaced on the spot, else a server that drops every connection after its
        handshake would be dialled in a hot loop.
        """
        failure = await self._check_link()
        if failure is None:
            return None
        self.disturbed_at_s = self._clock.now_s()
        self._hang_up()
        if self.outage is not None:
            return failure
        if failure.error_class in _USELESS:
            self.listener.on_suspect_pool()
        outcome = await self._attempt()
        if isinstance(outcome, Failure):
            return outcome
        self.outage = gate_state.begin_outage(self._clock.now_s())
        self._adopt(outcome)
        self.listener.on_reconnected()
        log_event("database.reconnected", address=outcome.endpoint.address)
        return None

    async def _check_link(self) -> Failure | None:
        if self.connected is None or self.connected.connection.is_closed():
            reason = f"{self.address} dropped the connection"
            return Failure(ErrorClass.DROPPED, reason, self.address, None, ConnectionResetError(reason))
        if self.session_owner is not None:
            return await self.session_owner.check(self.connected, is_routine=not self._is_suspected)
        async with self.mutex:
            return await check(self.connected.connection, self.connected.endpoint, self.connector)

    # Moves

    def _arrive(self, link: Connected) -> None:
        now_s = self._clock.now_s()
        is_start = self.state is MonitorState.CONNECTING
        self._adopt(link)
        self.state, self.state_since_s = MonitorState.UP, now_s
        if not is_start:
            self.disturbed_at_s = now_s  # errors of the outage may still be on their way
        outage = self.outage or gate_state.begin_outage(now_s)
        if is_start:
            gate_entries.tell_connected(link, outage, now_s)
        elif outage.flaps == 0:
            gate_entries.tell_recovered(self.address, outage, now_s)
        if is_start and not outage.failures:
            self.outage = None  # connected at the first attempt: nothing to be wary of
        self._up.set()
        self.listener.on_up(told=outage.flaps == 0)

    def _adopt(self, link: Connected) -> None:
        self.connected = link
        self._linked.set()
        self.next_try_at_s = None
        self._lookout.forget()
        self.has_worked = False
        self.up_since_s = self._clock.now_s()
        link.connection.add_termination_listener(lambda _: self.request_check())
        if self.session_owner is not None:
            self.session_owner.on_connected(self, link)

    def _go_down(self, failure: Failure) -> None:
        now_s = self._clock.now_s()
        self.state, self.state_since_s, self.failure = MonitorState.DOWN, now_s, failure
        self.disturbed_at_s = now_s
        self._up.clear()
        up_for_s = now_s - self.up_since_s
        self.outage = gate_state.lose(self.outage, now_s, up_for_s=up_for_s, cause=failure.error_class)
        is_news = self.outage.flaps == 0
        if is_news:
            gate_entries.tell_lost(failure)
        self.listener.on_down(failure, told=is_news)

    def _settle(self) -> None:
        now_s = self._clock.now_s()
        if self.outage is None or not gate_state.is_proven(now_s - self.up_since_s, has_worked=self.has_worked):
            return
        if self.outage.flaps > 0:
            gate_entries.tell_recovered(self.address, self.outage, now_s)
            self.listener.on_stable()
        self.outage, self.failure = None, None
        self.listener.on_status()

    def _hang_up(self) -> None:
        link, self.connected = self.connected, None
        if link is None:
            return
        self._linked.clear()
        if self.session_owner is not None:
            self.session_owner.on_disconnected(link)
        else:
            # Never a farewell: the peer may be frozen, and a farewell waits for it.
            link.connection.terminate()

    def close(self) -> None:
        """End, whatever the state."""
        self.state = MonitorState.CLOSED
        self._up.clear()
        self._hang_up()
        self._suspicion.confirm()

    @property
    def address(self) -> str:
        """Where the database is: the host in use, or all that are tried."""
        if self.connected is not None:
            return self.connected.endpoint.address
        return ", ".join(endpoint.address for endpoint in self.connector.route.endpoints)
