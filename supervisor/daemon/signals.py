"""The daemon's signals: blocked at first, then handled by the loop, and never lost in between."""

from __future__ import annotations

import os
import select
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

import uvloop

from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable

Ts = TypeVarTuple("Ts")

HANDLED = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class GuardedLoop(uvloop.Loop):
    """An event loop on which nobody but the daemon handles the daemon's signals.

    Of the servers that a worker may run, many install handlers of their own; a later handler silently
    displaces an earlier one, and the daemon could not be stopped any more.
    """

    _ours: Any = None

    def install(self, on_signal: Callable[[signal.Signals], None]) -> None:
        """Let the loop hand each signal to `on_signal`, then deliver those that arrived while they were blocked."""
        self._on_signal = on_signal
        for number in HANDLED:
            self._take(number)
        self._ours = signal.getsignal(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def retake(self) -> None:
        """Tell of the signals that something took past the loop, and take them back; call it on the loop.

        The kernel knows what C code did: `SigCgt` in `/proc/self/status`.
        """
        if blocked := signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED):
            for number in sorted(blocked):
                log_event("signal.displaced", signal=signal.Signals(number).name)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        caught = _caught()
        for number in HANDLED:
            if not caught >> (number - 1) & 1 or signal.getsignal(number) != self._ours:
                log_event("signal.displaced", signal=number.name)
                self._take(number)

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Handle a signal, but leave the daemon's own alone."""
        if self._is_ours(sig):
            log_event("signal.displaced", signal=signal.Signals(sig).name)
        else:
            super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Stop handling a signal, but leave the daemon's own alone."""
        return False if self._is_ours(sig) else super().remove_signal_handler(sig)

    def _take(self, number: signal.Signals) -> None:
        super().add_signal_handler(number, self._on_signal, number)

    def _is_ours(self, sig: int) -> bool:
        return self._ours is not None and sig in HANDLED


def terminal_is_gone() -> bool:
    """Whether a SIGHUP is what it was made for: the terminal that the daemon was started from has hung up."""
    return any(_has_hung_up(descriptor) for descriptor in (0, 1, 2))


def _has_hung_up(descriptor: int) -> bool:
    try:
        if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
            return False
        poll = select.poll()
        poll.register(descriptor, 0)
        return any(happened & select.POLLHUP for _, happened in poll.poll(0))
    except OSError:
        return False


def _caught() -> int:
    with Path("/proc/self/status").open("rb") as status:
        for line in status:
            if line.startswith(b"SigCgt:"):
                return int(line.split()[1], 16)
    return 0
