"""One connection through the tests' proxy: two transports and a pipe each way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import cast

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_ENCRYPTION_REQUESTS = {80877103, 80877104}  # SSLRequest and GSSENCRequest: the server answers with a single byte


@dataclass
class LinkConditions:
    """What the network does to bytes under way, shared by all links of a proxy.

    Attributes:
        frozen: The ways (`to_server`, `to_client`) that let nothing pass.
        latency_s: The delay of each chunk, each way.
        bytes_per_s: The bandwidth of each link, each way.
    """

    frozen: set[str] = field(default_factory=set)
    latency_s: float = 0.0
    bytes_per_s: float = float("inf")


class Pipe:
    """Passes what its source sends on to its sink, in order, when the weather lets it."""

    def __init__(self, way: str, weather: LinkConditions, sink: asyncio.Transport) -> None:
        self._way, self._weather, self._sink = way, weather, sink
        self._held: deque[tuple[float, bytes | None]] = deque()
        self._due_s = 0.0

    def put(self, data: bytes | None) -> None:
        """Pass `data` on, or, with None, the end of the stream."""
        now_s = asyncio.get_running_loop().time()
        spent_s = len(data or b"") / self._weather.bytes_per_s
        self._due_s = max(self._due_s, now_s + self._weather.latency_s) + spent_s
        self._held.append((self._due_s, data))
        self.flush()

    def flush(self) -> None:
        """Write whatever may pass by now."""
        loop = asyncio.get_running_loop()
        while self._held and self._way not in self._weather.frozen:
            due_s, data = self._held[0]
            if due_s > loop.time():
                loop.call_at(due_s, self.flush)
                return
            self._held.popleft()
            if data is None:
                self._sink.close()
            else:
                self._sink.write(data)


class Messages:
    """Counts PostgreSQL's messages to a client, to find the byte at which a connection is to be dropped."""

    def __init__(self, allowed: int) -> None:
        self._left = allowed
        self._buffer = bytearray()
        self._is_ready = False
        self._single_bytes = 0
        self.is_used_up = False

    def client_sent(self, data: bytes) -> None:
        """Take note of what the client sent: a request for encryption is answered by a byte without a frame."""
        if len(data) == 8 and struct.unpack("!ii", data)[1] in _ENCRYPTION_REQUESTS:
            self._single_bytes += 1

    def passing(self, data: bytes) -> bytes:
        """Return the part of what the server sent that still passes."""
        self._buffer += data
        passed = bytearray()
        while not self.is_used_up and (length := self._next_length()):
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            passed += message
            self._count(message)
        return bytes(passed)

    def _next_length(self) -> int:
        if self._single_bytes and self._buffer:
            return 1
        if len(self._buffer) < 5:
            return 0
        length = 1 + cast("int", struct.unpack_from("!i", self._buffer, 1)[0])
        return length if len(self._buffer) >= length else 0

    def _count(self, message: bytes) -> None:
        if self._single_bytes:
            self._single_bytes -= 1
            return
        if self._is_ready:
            self._left -= 1
        self._is_ready = self._is_ready or message.startswith(b"Z")
        self.is_used_up = self._is_ready and self._left <= 0


class TcpLink:
    """A client's connection, the server's that belongs to it, and the pipes between them."""

    def __init__(self, weather: LinkConditions, messages: Messages | None) -> None:
        self._weather, self._messages = weather, messages
        self._ends: dict[str, asyncio.Transport] = {}
        self._pipes: dict[str, Pipe] = {}

    @property
    def is_open(self) -> bool:
        """Whether one of its connections is up."""
        return any(not end.is_closing() for end in self._ends.values())

    def join(self, to: str, transport: asyncio.Transport) -> None:
        """Take the transport that leads `to_client` or `to_server`; with the second one bytes begin to flow."""
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.pause_reading()
        self._ends[to] = transport
        if len(self._ends) == 2:
            self._pipes = {way: Pipe(way, self._weather, end) for way, end in self._ends.items()}
            self.apply_weather()

    def received(self, way: str, data: bytes | None) -> None:
        """Pass on what one end sent towards `way`; None is its end of stream."""
        if self._messages is not None and data is not None:
            if way == "to_server":
                self._messages.client_sent(data)
            else:
                data = self._messages.passing(data)
        self._pipes[way].put(data)
        if way == "to_client" and self._messages is not None and self._messages.is_used_up:
            self._pipes["to_client"].put(None)
            self._ends["to_server"].abort()

    def apply_weather(self) -> None:
        """Stop or go on reading, as the weather has it: an end of stream is not read either while its way is frozen."""
        for way in self._pipes:
            source = self._ends["to_client" if way == "to_server" else "to_server"]
            self._pipes[way].flush()
            if not source.is_closing():
                source.pause_reading() if way in self._weather.frozen else source.resume_reading()

    def lost(self, error: Exception | None) -> None:
        """End both connections after one has ended; a reset is passed on as a reset."""
        if isinstance(error, ConnectionResetError):
            self.abort()

    def abort(self) -> None:
        """End both connections with RST."""
        for end in self._ends.values():
            abort(end)


class End(asyncio.Protocol):
    """One end of a link: it sends towards `way`, and its transport leads the other way."""

    def __init__(self, link: TcpLink, way: str) -> None:
        self._link, self._way = link, way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.join("to_client" if self._way == "to_server" else "to_server", cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._link.received(self._way, data)

    def eof_received(self) -> bool:
        self._link.received(self._way, None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost(exc)


def abort(transport: asyncio.Transport) -> None:
    """End a connection with RST instead of FIN."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    transport.abort()
