"""The socket to systemd's notify address: one datagram, one outcome, never a wait and never an exception."""

from __future__ import annotations

import socket
from typing import Any

from sdnotify import SystemdNotifier


class Channel:
    """A datagram socket to one notify address, connected when needed and again after it broke.

    systemd may be re-executed and a test or a container may take the socket away: a connection that
    broke is opened anew at the next message.
    """

    def __init__(self, address: str) -> None:
        """Remember the address.

        Args:
            address: An absolute path, or the name of an abstract socket with its leading `@`.
        """
        self.address = address
        self._notifier: Any = None

    def send(self, state: str) -> OSError | None:
        """Send one message and return None, or the error that kept it.

        A `BlockingIOError` means that the reader's queue is full; the connection is kept then.
        """
        had_connection = self._notifier is not None
        error = self._try(state)
        if error is not None and not isinstance(error, BlockingIOError):
            self.close()
            if had_connection:  # the reader may have been replaced by a new one at the same address
                return self._try(state)
        return error

    def close(self) -> None:
        """Let go of the socket; the next message opens another."""
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
    """Return a `SystemdNotifier` that talks to `address`, does not block and does not swallow errors.

    Its constructor is passed over: it reads the address from os.environ, where children would find it
    too, and leaves an unclosed socket behind when it cannot connect.
    """
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
