"""Ends what runs under leases that can no longer be trusted, whatever the database and the event loop do meanwhile."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from supervisor.leases.local_lease import TRUSTED, LeaseState
from supervisor.leases.timing import GRACE_S, TRUST_S, grace_is_over, trusted_until_s
from supervisor.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.database.session import Session
    from supervisor.leases.local_lease import LocalLease, LocalLeases

# A deadline is always further away when it is set: trust lasts for ten seconds, and a heartbeat comes every five.
_CHECK_INTERVAL_S = 1.0
# The loop acts at the same time, if it runs.
_LOOP_MARGIN_S = 0.2
_OVERSLEPT_S = 1.0


class Deadline(NamedTuple):
    """When the process has to end if nothing happens any more.

    Attributes:
        at_s: By the clock.
        lease: One of the leases under which something may run, for people.
    """

    at_s: float
    lease: str


class LeaseExpiry:
    """Counts the time since the last sign that this node's session holds its leases.

    It has a task of its own, because the node's loop may wait for the very answer that does not come.

    Attributes:
        deadline: For `LeaseExpiryThread`; None: nothing runs under a lease.
    """

    def __init__(
        self,
        leases: LocalLeases,
        *,
        clock: Clock,
        on_expired: Callable[[str], object],
        on_overrun: Callable[[str], object],
    ) -> None:
        self.deadline: Deadline | None = None
        self._renewed_s = float("-inf")
        self._leases = leases
        self._clock = clock
        self._wakeup = Wakeup(clock=clock)
        self._on_expired = on_expired
        self._on_overrun = on_overrun
        self._closing: list[Session] = []

    def close_when_idle(self, session: Session) -> None:
        """Close a session's connection once what ran under its leases has ended.

        The server may not have noticed anything: it would release the locks at once.
        """
        self._closing.append(session)
        self._close_idle()

    def renewed(self, sent_s: float) -> None:
        """Note that a statement sent at this time has shown the session alive, and its locks."""
        self._renewed_s = sent_s
        self._set_deadline()

    def check(self) -> None:
        """Check at once whether the leases are still trusted: the process may have been stopped for long."""
        if self._leases.trusted() and self._clock.now_s() >= trusted_until_s(self._renewed_s):
            self._on_expired(f"no answer from the server that shows it held for {TRUST_S:g}s")

    def wake(self) -> None:
        """Check the leases again: one has changed."""
        self._wakeup.wake()

    async def run(self) -> NoReturn:
        """Watch, without end."""
        try:
            await self._watch()
        finally:
            for session in self._closing:
                session.terminate()

    async def _watch(self) -> NoReturn:
        while True:
            now_s = self._clock.now_s()
            until_s = trusted_until_s(self._renewed_s)
            self.check()
            lost = self._leases.in_states(LeaseState.LOST)
            for lease in lost:
                if grace_is_over(lease.lost_s, now_s):
                    lease.lost_s = None
                    self._on_overrun(lease.name)
            self._close_idle()
            self._set_deadline()
            await self._wakeup.wait(self._next_check_s(lost, until_s))

    def _close_idle(self) -> None:
        in_use = {lease.session for lease in self._leases.in_states(LeaseState.LOST)}
        for session in tuple(self._closing):
            if session not in in_use:
                self._closing.remove(session)
                session.terminate()

    def _set_deadline(self) -> None:
        name = next((it.name for it in self._leases if it.state in TRUSTED or it.state is LeaseState.LOST), None)
        self.deadline = None if name is None else Deadline(trusted_until_s(self._renewed_s) + GRACE_S, name)

    def _next_check_s(self, lost: list[LocalLease], until_s: float) -> float | None:
        """Return when the next lease expires, or the next grace ends; None: neither is to come."""
        times_s = [lease.lost_s + GRACE_S for lease in lost if lease.lost_s is not None]
        if self._leases.trusted():
            times_s.append(until_s)
        return min(times_s, default=None)


class LeaseExpiryThread:
    """Ends the process when its leases have expired and a blocked event loop cannot do it.

    A thread that wakes up late was stopped together with the whole process, in which nothing can have run: then the
    loop gets its grace to end what it runs.
    """

    def __init__(
        self, deadline: Callable[[], Deadline | None], *, on_overrun: Callable[[str], object], clock: Clock
    ) -> None:
        self._deadline = deadline
        self._on_overrun = on_overrun
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lease expiry", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end; this does not wait for it."""
        self._stopped.set()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        not_before_s = float("-inf")
        while True:
            slept_from_s = self._clock.now_s()
            if self._stopped.wait(_CHECK_INTERVAL_S):
                return
            now_s = self._clock.now_s()
            if now_s > slept_from_s + _CHECK_INTERVAL_S + _OVERSLEPT_S:
                not_before_s = now_s + GRACE_S
            deadline = self._deadline()
            if deadline is not None and now_s >= max(deadline.at_s, not_before_s) + _LOOP_MARGIN_S:
                self._on_overrun(deadline.lease)
