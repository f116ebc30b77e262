"""Stand-ins for servers in states that a real PostgreSQL cannot be held in, or that are no PostgreSQL at all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

from support.postgres import free_port

if TYPE_CHECKING:
    from typing import Self

_ENCRYPTION_REQUESTS = {80877103, 80877104}
_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FakeServer:
    """Answers every client with the same bytes and closes, in threads of its own.

    Attributes:
        port: Where it listens on 127.0.0.1.
        attempts: How many clients it has answered.
    """

    def __init__(self, answer: bytes, *, speaks_postgres: bool, port: int | None = None) -> None:
        self.port = port or free_port()
        self.attempts = 0
        self._answer, self._speaks_postgres = answer, speaks_postgres
        self._listener = socket.socket()

    def __enter__(self) -> Self:
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(1000)
        self._thread = threading.Thread(target=self._serve, name=f"stand-in-{self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.attempts += 1
                with client, contextlib.suppress(OSError):
                    client.settimeout(30)
                    self._greet(client)

    def _greet(self, client: socket.socket) -> None:
        # A close with unread bytes would be a reset, and could lose the answer.
        first = client.recv(65536)
        while self._speaks_postgres and len(first) == 8 and struct.unpack("!ii", first)[1] in _ENCRYPTION_REQUESTS:
            client.sendall(b"N")
            first = client.recv(65536)
        if first:
            client.sendall(self._answer)


def http_server() -> FakeServer:
    """Return a server that is no PostgreSQL: it answers in HTTP."""
    return FakeServer(_HTTP, speaks_postgres=False)


def refusing_postgres(sqlstate: str, message: str, *, port: int | None = None) -> FakeServer:
    """Return a PostgreSQL that answers each startup packet with a FATAL error of this SQLSTATE."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = b"".join(key.encode() + text.encode() + b"\0" for key, text in fields.items()) + b"\0"
    return FakeServer(b"E" + struct.pack("!i", len(body) + 4) + body, speaks_postgres=True, port=port)
