"""systemd's end of the notify socket: every datagram, in order, with the moment it came."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT_S = 30.0


class NotifySocket:
    """Collects what a daemon tells systemd, in a thread of its own.

    Attributes:
        messages: Each datagram as its fields, in the order in which they came.
        moments: When each came, on the machine's monotonic clock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        self.moments: list[float] = []
        self._grown = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty datagram of our own ends the thread.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            sender.connect(str(self.path))
            sender.send(b"")
        self._thread.join(5)
        self._socket.close()

    def _collect(self) -> None:
        while datagram := self._socket.recv(65536):
            fields = dict(line.partition("=")[::2] for line in datagram.decode().splitlines())
            with self._grown:
                self.messages.append(fields)
                self.moments.append(time.monotonic())
                self._grown.notify_all()

    @property
    def environ(self) -> dict[str, str]:
        """What systemd would give the daemon."""
        return {"NOTIFY_SOCKET": str(self.path)}

    @property
    def mark(self) -> int:
        """How many datagrams came so far: for `after`."""
        with self._grown:
            return len(self.messages)

    def wait_for(self, field: str, value: str | None = None, *, after: int = 0, limit_s: float = LIMIT_S) -> int:
        """Return the index of the first datagram, at `after` or later, that has this field (with this in its value)."""

        def find() -> int | None:
            for index, fields in enumerate(self.messages[after:], after):
                if field in fields and (value is None or value in fields[field]):
                    return index
            return None

        return self._wait_until(find, f"{field}={value or '…'}", limit_s)

    def all_of(self, field: str) -> list[str]:
        """Return every value of this field so far."""
        with self._grown:
            return [fields[field] for fields in self.messages if field in fields]

    def essence(self) -> list[str]:
        """Return READY, RELOADING and STOPPING in their order."""
        with self._grown:
            return [name for fields in self.messages for name in ("READY", "RELOADING", "STOPPING") if name in fields]

    def _wait_until(self, find: Callable[[], int | None], what: str, limit_s: float) -> int:
        deadline = time.monotonic() + limit_s
        with self._grown:
            while (found := find()) is None:
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} among {self.messages}"
                self._grown.wait(left)
            return found


def full_socket(path: Path) -> socket.socket:
    """Return a bound socket that takes no more until somebody reads from it."""
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(str(path))
    while _fill(path):  # a sender's own buffer is smaller than the reader's queue
        pass
    return reader


def _fill(path: Path) -> int:
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(BlockingIOError):
        sender.setblocking(False)
        sender.connect(str(path))
        while sender.send(b"FILLER=1"):
            sent += 1
    return sent
