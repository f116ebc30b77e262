"""journald's native protocol: fields in a datagram, or in a sealed memory file when they are too large for one."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from supervisor.escaping import printable
from supervisor.journal.events import CRITICAL, DEBUG, ERROR, INFO, WARNING
from supervisor.journal.fields import journald_name
from supervisor.journal.templates import as_text

if TYPE_CHECKING:
    from supervisor.journal.entry import Rendered

SOCKET_PATH = "/run/systemd/journal/socket"
_PRIORITIES = {DEBUG: b"7", INFO: b"6", WARNING: b"4", ERROR: b"3", CRITICAL: b"2"}
_MAX_NAME = 64
_FINAL = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def encode_native(entry: Rendered) -> bytes:
    """Return an entry as the fields of one datagram."""
    parts = [
        _field("MESSAGE", entry.message),
        b"PRIORITY=%s\n" % _PRIORITIES.get(entry.level, b"6"),
        b"SYSLOG_IDENTIFIER=pgsupervisor\n",
        b"MESSAGE_ID=%s\n" % entry.message_id.encode(),
        _field("EVENT", entry.event),
    ]
    parts += (_field(_field_name(name), as_text(value)) for name, value in entry.fields.items() if value is not None)
    return b"".join(parts)


def _field(name: str, text: str) -> bytes:
    value = printable(text).encode("utf-8", "backslashreplace")
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    # The binary form: the name, the length in 64 bits, the value.
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


def _field_name(name: str) -> str:
    """Return the name as journald takes it; it silently drops fields with any other letter."""
    plain = journald_name(name)
    if not plain or plain[0].isdigit():
        plain = f"FIELD_{plain}"
    return plain[:_MAX_NAME]


class JournalSocket:
    """A connection to journald; made again after journald restarted."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def write(self, data: bytes) -> None:
        """Send one entry; blocks while journald's queue is full.

        Raises:
            OSError: journald is away.
        """
        if self._socket is not None:
            try:
                return self._send(self._socket, data)
            except OSError:
                # journald may have come back behind a new socket: one try with a new connection tells.
                self.close()
        self._socket = self._connect()
        return self._send(self._socket, data)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def _send(self, connection: socket.socket, data: bytes) -> None:
        try:
            connection.send(data)
        except OSError as exc:
            # ENOBUFS: Linux says it for datagrams beyond the socket's buffer, EMSGSIZE for those beyond the protocol's.
            if exc.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_file(connection, data)


def _send_file(connection: socket.socket, data: bytes) -> None:
    descriptor = os.memfd_create("pgsupervisor-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        # journald maps the file and only trusts one that cannot change any more.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FINAL)
        socket.send_fds(connection, [b""], [descriptor])
    finally:
        os.close(descriptor)
