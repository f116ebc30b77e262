"""The daemon's signals: blocked at first, then handled by the loop, and never lost in between."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HANDLED = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def install(loop: asyncio.AbstractEventLoop, on_signal: Callable[[signal.Signals], None]) -> None:
    """Let the loop hand each signal to `on_signal`, then deliver those that arrived while they were blocked."""
    for number in HANDLED:
        loop.add_signal_handler(number, on_signal, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def displaced() -> list[signal.Signals]:
    """Return the signals whose handler is no longer ours to rely on.

    A library that a worker imports can take a handler silently, and systemd's SIGHUP would then kill
    the daemon. The kernel knows the truth: `SigCgt` in `/proc/self/status`.
    """
    caught = _caught()
    return [
        number for number in HANDLED if not caught >> (number - 1) & 1 or signal.getsignal(number) is signal.SIG_DFL
    ]


def restore(number: signal.Signals, on_signal: Callable[[signal.Signals], None]) -> None:
    """Take a displaced signal back; call it on the loop."""
    asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def _caught() -> int:
    for line in Path("/proc/self/status").read_text("ascii", errors="replace").splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16)
    return 0
