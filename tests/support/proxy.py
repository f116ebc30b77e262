"""A TCP proxy whose faults a test chooses; it runs in a thread of its own, apart from the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from support.postgres import free_port
from support.tcp_link import End, LinkConditions, Messages, TcpLink, abort

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

T = TypeVar("T")


class Mode(Enum):
    """What happens to a new connection."""

    FORWARD = auto()
    REFUSE = auto()
    RESET = auto()
    CLOSE = auto()
    MUTE = auto()
    BLACK_HOLE = auto()


class Proxy:
    """Passes a port's connections on to a server, or does to them what networks do.

    `forward`, `refuse`, `reset`, `accept_then_close`, `mute`, `black_hole` and `drop_after_handshake` say what becomes
    of new connections and leave the open ones alone. `freeze`, `thaw` and `slow` concern the open ones, and later ones
    too until taken back. `cut` ends the open ones. Every method returns when its effect is there.

    Attributes:
        host: Where it listens: 127.0.0.1.
        port: Its port, the same for all its life.
        attempts: Connections accepted since the start or `reset_attempts()`; refused and black-holed ones go unseen.
    """

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.attempts = 0
        self._target = (target_host, target_port)
        self._mode = Mode.FORWARD
        self._messages_allowed: int | None = None
        self._listener: asyncio.Server | socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._links: set[TcpLink] = set()
        self._ever: list[TcpLink] = []  # one end of a link can outlive the other, unseen
        self._weather = LinkConditions()
        self._dials: set[asyncio.Task[None]] = set()
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.forward()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            await self._stop_listening()
            for dial in self._dials:
                dial.cancel()
            await asyncio.gather(*self._dials, return_exceptions=True)
            await self._turn()  # a connection that was just accepted takes some turns to become a link
            for link in self._ever:
                link.abort()
            await self._turn()  # the transports close their sockets in the loop's next turns

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def forward(self) -> None:
        """Pass connections on. One that the server does not take is closed after it was accepted."""
        self._switch(Mode.FORWARD)

    def refuse(self) -> None:
        """Stop listening: a new connection is refused at once."""
        self._switch(Mode.REFUSE)

    def aim(self, target_port: int) -> None:
        """Pass new connections on to another port, as a proxy after a fail-over."""
        self._target = (self._target[0], target_port)

    def reset(self) -> None:
        """Accept, then answer with RST."""
        self._switch(Mode.RESET)

    def accept_then_close(self) -> None:
        """Accept, then close (FIN), as haproxy before a dead server."""
        self._switch(Mode.CLOSE)

    def mute(self) -> None:
        """Accept and never say anything."""
        self._switch(Mode.MUTE)

    def black_hole(self) -> None:
        """Leave SYNs unanswered. A client's kernel repeats its SYN after 1, 3, 7 s, so an old dial may yet succeed."""
        self._switch(Mode.BLACK_HOLE)

    def drop_after_handshake(self, messages: int = 0) -> None:
        """Pass connections on until the server is ready for queries and has sent `messages` more; then close them."""
        self._switch(Mode.FORWARD, messages_allowed=messages)

    def freeze(self, direction: Literal["both", "to_server", "to_client"] = "both") -> None:
        """Let no byte, FIN or RST pass any more; the connections stay up."""
        ways = {"to_server", "to_client"} if direction == "both" else {direction}
        self._call(lambda: self._set_frozen(self._weather.frozen | ways))

    def forget(self) -> None:
        """Let no byte of the open connections pass any more, as a firewall that lost its table; new ones are fine."""

        def apply() -> None:
            self._set_frozen({"to_server", "to_client"})
            self._weather = LinkConditions()

        self._call(apply)

    def thaw(self) -> None:
        """Let everything pass again, what was held back first."""
        self._call(lambda: self._set_frozen(set()))

    def slow(self, latency_s: float = 0.0, bytes_per_s: float = float("inf")) -> None:
        """Delay what passes by `latency_s` each way and limit the bandwidth; without arguments neither any more."""

        def apply() -> None:
            self._weather.latency_s, self._weather.bytes_per_s = latency_s, bytes_per_s

        self._call(apply)

    def cut(self) -> int:
        """End the open connections with RST, both ways, and say how many they were."""
        return self._call(self._cut)

    def reset_attempts(self) -> None:
        """Count from 0 again."""
        self.attempts = 0

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return self._call(lambda: sum(link.is_open for link in self._links))

    def accepted(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Do with a new connection as the mode has it; return its end of a link if it gets one."""
        self.attempts += 1
        match self._mode:
            case Mode.RESET:
                abort(transport)
            case Mode.CLOSE:
                transport.close()
            case Mode.MUTE | Mode.FORWARD | Mode.REFUSE | Mode.BLACK_HOLE:
                return self._link(transport)
        return None

    def _link(self, transport: asyncio.Transport) -> asyncio.Protocol:
        allowed = self._messages_allowed
        link = TcpLink(self._weather, None if allowed is None else Messages(allowed))
        self._links = {other for other in self._links if other.is_open} | {link}
        self._ever.append(link)
        end = End(link, "to_server")
        end.connection_made(transport)
        if self._mode is not Mode.MUTE:
            dial = self._loop.create_task(self._dial(link, transport))
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)
        return end

    async def _dial(self, link: TcpLink, client: asyncio.Transport) -> None:
        try:
            await self._loop.create_connection(lambda: End(link, "to_client"), *self._target)
        except OSError:
            client.close()

    def _switch(self, mode: Mode, *, messages_allowed: int | None = None) -> None:
        async def apply() -> None:
            await self._stop_listening()
            self._mode, self._messages_allowed = mode, messages_allowed
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            # Bound and not listening: connections are refused, and nobody else gets the port.
            self._listener = listener
            if mode is Mode.BLACK_HOLE:
                self._fill(listener)
            elif mode is not Mode.REFUSE:
                listener.listen(1000)
                self._listener = await self._loop.create_server(lambda: _Door(self), sock=listener, backlog=1000)

        self._run(apply())

    def _fill(self, listener: socket.socket) -> None:
        # Linux drops SYNs while the queue of connections that nobody has accepted is full.
        listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((self.host, self.port))
            self._fillers.append(filler)

    async def _stop_listening(self) -> None:
        if isinstance(self._listener, asyncio.Server):
            # A connection accepted in the very turn in which asyncio's server is closed would be lost unclosed.
            for sock in self._listener.sockets:
                self._loop.remove_reader(sock.fileno())
            await self._turn()
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _cut(self) -> int:
        links = [link for link in self._links if link.is_open]
        for link in links:
            link.abort()
        self._links.clear()
        return len(links)

    def _set_frozen(self, ways: set[str]) -> None:
        self._weather.frozen = ways
        for link in self._links:
            link.apply_weather()

    def _call(self, action: Callable[[], T]) -> T:
        async def call() -> T:
            return action()

        return self._run(call())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class _Door(asyncio.Protocol):
    """Sees a connection in, and hands it to its link's end."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast("asyncio.Transport", transport)
        end = self._proxy.accepted(accepted)
        if end is not None:
            accepted.set_protocol(end)
