"""The daemon's signals: blocked at first, then handled by the loop, and never lost in between."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

import uvloop

from supervisor.daemon.component import Component
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Callable

Ts = TypeVarTuple("Ts")

HANDLED = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class SignalOwningLoop(uvloop.Loop):
    """An event loop on which only the daemon handles the daemon's signals.

    Many servers that a worker may run install handlers of their own. A later handler silently replaces an
    earlier one, and the daemon could not be stopped any more.
    """

    _our_handler: Any = None

    def install(self, on_signal: Callable[[signal.Signals], None]) -> None:
        """Let the loop hand each signal to `on_signal`, then deliver those that arrived while they were blocked."""
        self._on_signal = on_signal
        for number in HANDLED:
            self._install_one(number)
        self._our_handler = signal.getsignal(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def restore_handlers(self) -> None:
        """Log which handlers other code replaced without the loop, and install ours again; call it on the loop.

        The kernel knows what C code did: `SigCgt` in `/proc/self/status`.
        """
        if blocked := signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED):
            for number in sorted(blocked):
                log_event("signal.handler_replaced", signal=signal.Signals(number).name)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        caught = _caught_mask()
        for number in HANDLED:
            if not caught >> (number - 1) & 1 or signal.getsignal(number) != self._our_handler:
                log_event("signal.handler_replaced", signal=number.name)
                self._install_one(number)

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Handle a signal, but leave the daemon's own alone."""
        if self._is_our_handler(sig):
            log_event("signal.handler_replaced", signal=signal.Signals(sig).name)
        else:
            super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Stop handling a signal, but leave the daemon's own alone."""
        return False if self._is_our_handler(sig) else super().remove_signal_handler(sig)

    def _install_one(self, number: signal.Signals) -> None:
        super().add_signal_handler(number, self._on_signal, number)

    def _is_our_handler(self, sig: int) -> bool:
        return self._our_handler is not None and sig in HANDLED


class SignalHandling(Component):
    """Turns signals into requests: SIGHUP reloads; SIGTERM and SIGINT stop, and force the stop when repeated.

    Args:
        on_reload: Requests a reload.
        on_stop: Requests the stop, with the reason; the first SIGTERM.
        on_force_stop: Cancels what still runs; the second.
        on_exit: Ends the process at once; the third.
    """

    name = "signals"

    def __init__(
        self,
        *,
        on_reload: Callable[[], object],
        on_stop: Callable[[str], object],
        on_force_stop: Callable[[], object],
        on_exit: Callable[[], object],
    ) -> None:
        self._on_reload = on_reload
        self._on_stop = on_stop
        self._on_force_stop = on_force_stop
        self._on_exit = on_exit
        self._stop_signals = 0
        self._loop: SignalOwningLoop | None = None

    async def start(self) -> None:
        """Install the handlers; signals that arrived before are handled now."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, SignalOwningLoop):  # a test has a loop of its own
            loop.install(self.on_signal)
            self._loop = loop

    def restore(self) -> None:
        """Install the handlers again that an import or a worker replaced: a SIGHUP could kill the daemon."""
        if self._loop is not None:
            self._loop.restore_handlers()

    def on_signal(self, number: signal.Signals) -> None:
        """Handle a signal, on the loop."""
        if number is signal.SIGHUP and not terminal_hung_up():
            self._on_reload()
            return
        self._stop_signals += 1
        match self._stop_signals:
            case 1:
                is_hangup = number is signal.SIGHUP
                self._on_stop("the terminal was closed" if is_hangup else f"asked by {number.name}")
            case 2:
                self._on_force_stop()
            case _:
                self._on_exit()


def terminal_hung_up() -> bool:
    """Whether a SIGHUP means that the terminal was closed from which the daemon was started, and no reload."""
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


def _caught_mask() -> int:
    with Path("/proc/self/status").open("rb") as status:
        for line in status:
            if line.startswith(b"SigCgt:"):
                return int(line.split()[1], 16)
    return 0
