"""What the daemon tells systemd, so that no message blocks, raises or is lost unnoticed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from supervisor.systemd.channel import Channel

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# systemd reads datagrams of at most 4096 bytes and ignores a longer one, READY=1 and all.
_STATUS_LIMIT_BYTES = 1500

# Addressed to this process alone: a child that finds them (PostgreSQL speaks sd_notify itself) could end the unit.
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Notifier:
    """Tells systemd how the daemon is; without a notify socket every method does nothing.

    What must not be lost (READY, RELOADING, STOPPING) is kept in order when the socket is full or
    gone, and the newest STATUS with it; `retry()` sends them later. WATCHDOG and EXTEND_TIMEOUT are
    dropped then: they are repeated anyway and an old one says nothing.

    Attributes:
        watchdog_limit_s: systemd kills the daemon when it has heard no WATCHDOG for so long; None: it
            does not look. Feed it at half of this.
        problem: A sentence when messages began to fail; set again only after one got through.
    """

    def __init__(self, address: str | None, *, watchdog_limit_s: float | None = None) -> None:
        """Prepare to talk to `address`; nothing is opened before the first message.

        Args:
            address: NOTIFY_SOCKET as systemd gives it; None or empty: there is nobody to tell.
            watchdog_limit_s: See the class.
        """
        self.problem: str | None = None
        self.watchdog_limit_s = watchdog_limit_s
        self._channel: Channel | None = None
        self._kept: list[str] = []
        self._kept_status: str | None = None
        self._is_failing = False
        if address and address[0] in "/@":
            self._channel = Channel(address)
        elif address:
            self.problem = f"NOTIFY_SOCKET={_one_line(address)} is neither a path nor @name: systemd hears nothing"

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take systemd's variables out of `environ`, so that no child sees them, and return their notifier."""
        taken = {name: environ.pop(name, "") for name in _VARIABLES}
        return cls(taken["NOTIFY_SOCKET"], watchdog_limit_s=_watchdog_limit_s(taken))

    @property
    def has_pending(self) -> bool:
        """Whether something is kept for `retry()`."""
        return bool(self._kept) or self._kept_status is not None

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often to call `watchdog()`: half of systemd's limit; None: never."""
        return None if self.watchdog_limit_s is None else self.watchdog_limit_s / 2

    def pop_problem(self) -> str | None:
        """Return `problem` and forget it, so that it is told once."""
        problem, self.problem = self.problem, None
        return problem

    def ready(self, status: str | None = None) -> None:
        """Say that the start, or a reload, is over."""
        self._tell_surely("READY=1", status)

    def reloading(self, monotonic_usec: int | None = None) -> None:
        """Say that a reload has begun; `ready()` has to follow, whatever its outcome.

        Args:
            monotonic_usec: CLOCK_MONOTONIC (not a `Clock`) when it began; None: now.
        """
        if monotonic_usec is None:
            # systemd compares this with its own reading, so it cannot come from a Clock with its offset.
            monotonic_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell_surely(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")

    def stopping(self, status: str | None = None) -> None:
        """Say that the stop has begun; systemd takes it as final."""
        self._tell_surely("STOPPING=1", status)

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`."""
        self._kept_status = _status(text)
        self.retry()

    def watchdog(self) -> None:
        """Say that the daemon is alive."""
        self._tell_now("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for at least `seconds` more until the next message; repeat it within that time."""
        self._tell_now(f"EXTEND_TIMEOUT_USEC={max(1, round(seconds * 1e6))}")

    def failed(self, exit_status: int, *, errno: int | None = None, status: str | None = None) -> None:
        """Say why the daemon is about to end.

        Args:
            exit_status: What it will exit with.
            errno: The system's error behind it, if there is one.
            status: A sentence for `systemctl status`.
        """
        lines = [f"EXIT_STATUS={exit_status}"]
        lines += [] if errno is None else [f"ERRNO={errno}"]
        lines += [] if status is None else [_status(status)]
        self._tell_now("\n".join(lines))

    def retry(self) -> None:
        """Try to send what is kept."""
        while self._kept and self._send(self._kept[0]):
            del self._kept[0]
        if not self._kept and self._kept_status is not None and self._send(self._kept_status):
            self._kept_status = None

    def close(self) -> None:
        """Let go of the socket and of what was kept."""
        self._kept.clear()
        self._kept_status = None
        if self._channel is not None:
            self._channel.close()

    def _tell_surely(self, message: str, status: str | None = None) -> None:
        self.retry()
        if status is not None:
            self._kept_status = None  # the new one replaces it
        whole = message if status is None else f"{message}\n{_status(status)}"
        if self.has_pending or not self._send(whole):
            self._kept = _merge(self._kept, message)
            self._kept_status = self._kept_status if status is None else _status(status)

    def _tell_now(self, message: str) -> None:
        self.retry()
        if not self._kept:
            self._send(message)

    def _send(self, message: str) -> bool:
        """Send one datagram and say whether it is dealt with."""
        if self._channel is None:
            return True
        error = self._channel.send(message)
        if error is not None and not self._is_failing:
            self.problem = _sentence(self._channel.address, error)
        self._is_failing = error is not None
        return error is None


def _merge(kept: list[str], message: str) -> list[str]:
    """Return the kept messages with one more, and without those that it makes pointless.

    A new reload replaces a kept one and what followed it, so at most four are ever kept: READY,
    RELOADING, READY, STOPPING.
    """
    if message.startswith("RELOADING"):
        first = next((at for at, old in enumerate(kept) if old.startswith("RELOADING")), len(kept))
        return [*kept[:first], message]
    return kept if kept and kept[-1] == message else [*kept, message]


def _status(text: str) -> str:
    cut = _one_line(text).encode()
    if len(cut) > _STATUS_LIMIT_BYTES:
        cut = cut[:_STATUS_LIMIT_BYTES].decode(errors="ignore").encode() + "…".encode()
    return f"STATUS={cut.decode()}"


def _one_line(text: str) -> str:
    """Return `text` with a space for what cannot be printed.

    A newline would start another field; systemd ignores the whole datagram for a NUL, and the status
    for a lone surrogate.
    """
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _sentence(address: str, error: OSError) -> str:
    reason = "its queue is full" if isinstance(error, BlockingIOError) else error.strerror or str(error)
    return f"nothing gets through {_one_line(address)} ({reason}); it is tried again and again"


def _watchdog_limit_s(taken: dict[str, str]) -> float | None:
    """Return the limit that is meant for this very process, not for a parent it was inherited from."""
    usec, pid = taken["WATCHDOG_USEC"], taken["WATCHDOG_PID"]
    if not taken["NOTIFY_SOCKET"] or not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    return int(usec) / 1e6 if pid in {"", str(os.getpid())} else None
