"""Messages to systemd (sd_notify), none of which blocks, raises or is lost unnoticed."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from sdnotify import SystemdNotifier

from supervisor.escaping import printable_line

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# systemd reads datagrams of at most 4096 bytes and ignores a longer one, READY=1 and all.
_STATUS_LIMIT_BYTES = 1500

# Addressed to this process alone: a child that finds them (PostgreSQL speaks sd_notify itself) could end the unit.
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class NotifySocket:
    """A datagram socket to one notify address, connected when needed and again after it broke.

    systemd may be re-executed and a test or a container may take the socket away: a connection that
    broke is opened again at the next message.
    """

    def __init__(self, address: str) -> None:
        """Remember the address.

        Args:
            address: An absolute path, or the name of an abstract socket with its leading `@`.
        """
        self.address = address
        self._notifier: Any = None

    def send(self, state: str) -> OSError | None:
        """Send one message and return None, or the error that prevented it.

        A `BlockingIOError` means that the reader's queue is full; the connection stays open then.
        """
        had_connection = self._notifier is not None
        error = self._try(state)
        if error is not None and not isinstance(error, BlockingIOError):
            self.close()
            if had_connection:  # the reader may have been replaced by a new one at the same address
                return self._try(state)
        return error

    def close(self) -> None:
        """Close the socket; the next message opens another."""
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None

    def _try(self, state: str) -> OSError | None:
        try:
            if self._notifier is None:
                self._notifier = _connect(self.address)
            # sdnotify encodes latin-1, which gives these bytes of UTF-8 back unchanged.
            self._notifier.notify(state.encode().decode("latin-1"))
        except OSError as error:
            return error
        return None


def _connect(address: str) -> Any:
    """Return a `SystemdNotifier` that talks to `address`, does not block and does not swallow errors."""
    # What is left of sdnotify is `notify()`: encode the text and send it on the connected socket; `debug` makes it
    # raise. Its constructor is not called: it reads the address from os.environ, where child processes would find it
    # too, connects a blocking socket, and leaves that open when it cannot connect.
    notifier = SystemdNotifier.__new__(SystemdNotifier)
    notifier.debug = True
    notifier.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        notifier.socket.setblocking(False)
        notifier.socket.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        notifier.socket.close()
        raise
    return notifier


class Notifier:
    """Reports the daemon's state to systemd; without a notify socket every method does nothing.

    What must not be lost (READY, RELOADING, STOPPING) stays in order when the socket is full or
    gone, and so is the newest STATUS; `retry()` sends them later. WATCHDOG and EXTEND_TIMEOUT are
    dropped then: they are repeated anyway, and an old one means nothing.

    Attributes:
        watchdog_limit_s: systemd kills the daemon when it has received no WATCHDOG for so long; None:
            no watchdog. Send one at half of this.
        problem: A sentence when messages began to fail; set again only after one got through.
    """

    def __init__(self, address: str | None, *, watchdog_limit_s: float | None = None) -> None:
        """Prepare to talk to `address`; nothing is opened before the first message.

        Args:
            address: NOTIFY_SOCKET as systemd gives it; None or empty: no systemd.
            watchdog_limit_s: See the class.
        """
        self.problem: str | None = None
        self.watchdog_limit_s = watchdog_limit_s
        self._socket: NotifySocket | None = None
        self._pending: list[str] = []
        self._pending_status: str | None = None
        self._is_failing = False
        if address and address[0] in "/@":
            self._socket = NotifySocket(address)
        elif address:
            self.problem = (
                f"NOTIFY_SOCKET={printable_line(address)} is neither a path nor @name: systemd gets no messages"
            )

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take systemd's variables out of `environ`, so that no child sees them, and return their notifier."""
        taken = {name: environ.pop(name, "") for name in _VARIABLES}
        return cls(taken["NOTIFY_SOCKET"], watchdog_limit_s=_watchdog_limit_s(taken))

    @property
    def has_pending(self) -> bool:
        """Whether something is pending for `retry()`."""
        return bool(self._pending) or self._pending_status is not None

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often to call `watchdog()`: half of systemd's limit; None: never."""
        return None if self.watchdog_limit_s is None else self.watchdog_limit_s / 2

    def pop_problem(self) -> str | None:
        """Return `problem` and forget it, so that it is logged once."""
        problem, self.problem = self.problem, None
        return problem

    def ready(self, status: str | None = None) -> None:
        """Report that the start, or a reload, is complete."""
        self._send_reliably("READY=1", status)

    def reloading(self, monotonic_usec: int | None = None) -> None:
        """Report that a reload has begun; `ready()` has to follow, whatever its outcome.

        Args:
            monotonic_usec: CLOCK_MONOTONIC (not a `Clock`) when it began; None: now.
        """
        if monotonic_usec is None:
            # systemd compares this with its own reading, so it cannot come from a Clock with its offset.
            monotonic_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send_reliably(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")

    def stopping(self, status: str | None = None) -> None:
        """Report that the stop has begun; systemd takes it as final."""
        self._send_reliably("STOPPING=1", status)

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`."""
        self._pending_status = _status(text)
        self.retry()

    def watchdog(self) -> None:
        """Report that the daemon is alive."""
        self._send_best_effort("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for at least `seconds` more until the next message; repeat it within that time."""
        self._send_best_effort(f"EXTEND_TIMEOUT_USEC={max(1, round(seconds * 1e6))}")

    def failed(self, exit_status: int, *, errno: int | None = None, status: str | None = None) -> None:
        """Report why the daemon is about to end.

        Args:
            exit_status: What it will exit with.
            errno: The system's error behind it, if there is one.
            status: A sentence for `systemctl status`.
        """
        lines = [f"EXIT_STATUS={exit_status}"]
        lines += [] if errno is None else [f"ERRNO={errno}"]
        lines += [] if status is None else [_status(status)]
        self._send_best_effort("\n".join(lines))

    def retry(self) -> None:
        """Try to send what is pending."""
        while self._pending and self._send(self._pending[0]):
            del self._pending[0]
        if not self._pending and self._pending_status is not None and self._send(self._pending_status):
            self._pending_status = None

    def close(self) -> None:
        """Close the socket and forget what is pending."""
        self._pending.clear()
        self._pending_status = None
        if self._socket is not None:
            self._socket.close()

    def _send_reliably(self, message: str, status: str | None = None) -> None:
        self.retry()
        if status is not None:
            self._pending_status = None  # the new one replaces it
        whole = message if status is None else f"{message}\n{_status(status)}"
        if self.has_pending or not self._send(whole):
            self._pending = _merge(self._pending, message)
            self._pending_status = self._pending_status if status is None else _status(status)

    def _send_best_effort(self, message: str) -> None:
        self.retry()
        if not self._pending:
            self._send(message)

    def _send(self, message: str) -> bool:
        """Send one datagram and return whether it is done with."""
        if self._socket is None:
            return True
        error = self._socket.send(message)
        if error is not None and not self._is_failing:
            self.problem = _sentence(self._socket.address, error)
        self._is_failing = error is not None
        return error is None


def _merge(pending: list[str], message: str) -> list[str]:
    """Return the pending messages with one more, without those that it makes pointless.

    A new reload replaces a pending one and what followed it, so at most four are ever pending: READY,
    RELOADING, READY, STOPPING.
    """
    if message.startswith("RELOADING"):
        first = next((at for at, old in enumerate(pending) if old.startswith("RELOADING")), len(pending))
        return [*pending[:first], message]
    return pending if pending and pending[-1] == message else [*pending, message]


def _status(text: str) -> str:
    cut = _single_line(text).encode()
    if len(cut) > _STATUS_LIMIT_BYTES:
        cut = cut[:_STATUS_LIMIT_BYTES].decode(errors="ignore").encode() + "…".encode()
    return f"STATUS={cut.decode()}"


def _single_line(text: str) -> str:
    """Return `text` with a space for what cannot be printed.

    A newline would start another field; systemd ignores the whole datagram for a NUL, and the status
    for a lone surrogate.
    """
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _sentence(address: str, error: OSError) -> str:
    reason = "its queue is full" if isinstance(error, BlockingIOError) else error.strerror or str(error)
    return f"nothing gets through {printable_line(address)} ({reason}); retrying"


def _watchdog_limit_s(taken: dict[str, str]) -> float | None:
    """Return the limit that is meant for this very process, not for a parent it was inherited from."""
    usec, pid = taken["WATCHDOG_USEC"], taken["WATCHDOG_PID"]
    if not taken["NOTIFY_SOCKET"] or not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    return int(usec) / 1e6 if pid in {"", str(os.getpid())} else None
