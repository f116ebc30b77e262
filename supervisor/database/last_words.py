"""What a server says when it ends a connection on which nothing is being asked.

It names its reason in a message that nobody waits for (57P01: a shutdown or `pg_terminate_backend`, 57P05: the session
was idle for too long), and asyncpg drops that; who asks something at this very moment is told of asyncpg's insides.
So what arrives is looked at on its way, and only what came last is kept.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

# More than any such message has; it comes in one piece, but nobody promises that.
_KEPT_BYTES = 4096
# The fields of an ErrorResponse: the severity that is never translated, the SQLSTATE, the message.
_FATAL = re.compile(rb"V(?:FATAL|PANIC)\0C([0-9A-Z]{5})\0M([^\0]*)\0")


def fatal_message_in(data: bytes) -> str | None:
    """Return the server's last words in what it sent last; None: it ended without any."""
    found = _FATAL.search(data)
    return None if found is None else f"{found[2].decode('utf-8', 'replace')} ({found[1].decode('ascii')})"


class FatalMessageTap(asyncio.Protocol):
    """Stands between a connection and its socket, and passes everything on."""

    def __init__(self, protocol: Any = None) -> None:
        self._protocol = protocol
        self._tail = b""

    @property
    def message(self) -> str | None:
        """The server's last words so far; None: there are none."""
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
    """Return what a connection's server will have said last."""
    if connection.is_closed():
        return FatalMessageTap()
    # asyncpg offers nothing for it.
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    protocol = transport.get_protocol()
    if isinstance(protocol, FatalMessageTap):
        return protocol
    overheard = FatalMessageTap(protocol)
    transport.set_protocol(overheard)
    return overheard
