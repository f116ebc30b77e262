"""The message with which a server ends a connection that has no statement in flight.

The server gives its reason in a message that nobody waits for (57P01: a shutdown or `pg_terminate_backend`, 57P05: the
session was idle for too long). asyncpg drops that message, and the next statement fails with an error about asyncpg's
own state. `tap` keeps the end of what arrives, so that the reason can be logged.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from supervisor.database.asyncpg_private import transport_of

if TYPE_CHECKING:
    import asyncpg


# Longer than any such message; it arrives in one piece, but nothing guarantees that.
_KEPT_BYTES = 4096
# The fields of an ErrorResponse: the severity that is never translated, the SQLSTATE, the message.
_FATAL = re.compile(rb"V(?:FATAL|PANIC)\0C([0-9A-Z]{5})\0M([^\0]*)\0")


def fatal_message_in(data: bytes) -> str | None:
    """Return the fatal message in what the server sent last; None: there is none."""
    found = _FATAL.search(data)
    return None if found is None else f"{found[2].decode('utf-8', 'replace')} ({found[1].decode('ascii')})"


class FatalMessageTap(asyncio.Protocol):
    """A protocol between a connection and its socket that passes everything on."""

    def __init__(self, protocol: Any = None) -> None:
        self._protocol = protocol
        self._tail = b""

    @property
    def message(self) -> str | None:
        """The fatal message so far; None: there is none."""
        return fatal_message_in(self._tail)

    def data_received(self, data: bytes) -> None:
        """Keep the end of what arrives."""
        self._tail = (self._tail + data[-_KEPT_BYTES:])[-_KEPT_BYTES:]
        self._protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        answer: bool | None = self._protocol.eof_received()
        return answer

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()


def tap(connection: asyncpg.Connection) -> FatalMessageTap:
    """Return the tap of a connection, installed if need be."""
    if connection.is_closed():
        return FatalMessageTap()
    transport = transport_of(connection)
    protocol = transport.get_protocol()
    if isinstance(protocol, FatalMessageTap):
        return protocol
    installed = FatalMessageTap(protocol)
    transport.set_protocol(installed)
    return installed
