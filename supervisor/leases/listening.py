"""What a node hears on its session: leases given back, asked for, and whatever others subscribe to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from supervisor.clock import Clock
    from supervisor.leases.joining import Joined

CHANNEL = "supervisor_lease"
_GIVE = "give "
# A notification carries less than 8,000 bytes.
_ASKED_AT_ONCE = 500
# A worker may take its time to end, and one that is finished keeps its lease.
_ASK_AGAIN_S = 0.4
_ASK_AGAIN_AT_MOST_S = 15.0


class Listening:
    """The channels of a node, listened to again on each new session.

    Attributes:
        requests: Which node has asked for which lease since they were last looked at.
    """

    def __init__(self, on_news: Callable[[], object]) -> None:
        self.requests: dict[int, int] = {}
        self._on_news = on_news
        self._subscribers: dict[str, list[Callable[[str], object]]] = {CHANNEL: [self._hear_lease]}
        self._joined: Joined | None = None
        self._listened: set[str] = set()

    def subscribe(self, channel: str, heard: Callable[[str], object]) -> None:
        """Call `heard` with the payload of each notification, and with "" when some may have been missed."""
        self._subscribers.setdefault(channel, []).append(heard)
        self._listened.discard(channel)
        self._on_news()

    async def tune(self, joined: Joined) -> None:
        """Listen to what is not listened to yet; raises as `Session.do` does."""
        if self._joined is not joined:
            self._joined = joined
            self._listened.clear()
        while missing := self._subscribers.keys() - self._listened:
            channel = missing.pop()
            await joined.session.listen(channel, self._hear)
            self._listened.add(channel)
            for heard in tuple(self._subscribers[channel]):
                heard("")

    async def silence(self, joined: Joined) -> None:
        """Listen to nothing any more; raises as `Session.do` does."""
        while self._listened:
            channel = self._listened.pop()
            await joined.session.execute(partial(_unlisten, channel=channel, heard=self._hear))

    def take_requests(self) -> dict[int, int]:
        """Return what was asked for, once."""
        requests, self.requests = self.requests, {}
        return requests

    def _hear(self, _connection: object, pid: int, channel: str, payload: str) -> None:
        if channel == CHANNEL and self._joined is not None and pid == self._joined.backend.pid:
            return  # this node's own
        for heard in tuple(self._subscribers.get(channel, ())):
            heard(payload)

    def _hear_lease(self, payload: str) -> None:
        if payload.startswith(_GIVE):
            leases, _, node = payload.removeprefix(_GIVE).partition(" to ")
            if node.isdecimal():
                self.requests |= {int(lease): int(node) for lease in leases.split(",") if lease.isdecimal()}
        self._on_news()


async def _unlisten(connection: Any, *, channel: str, heard: Callable[..., object]) -> None:
    await connection.remove_listener(channel, heard)


class Asking:
    """When to ask for leases: at once, then again at growing distances as long as they are the same ones in vain."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._asked: tuple[int, ...] = ()
        self._pause_s = _ASK_AGAIN_S
        self._next_s = float("-inf")

    def is_due(self, leases: tuple[int, ...]) -> bool:
        """Whether to ask for these leases now; if so, they count as asked for."""
        now_s = self._clock.now_s()
        if leases != self._asked:
            self._asked, self._pause_s, self._next_s = leases, _ASK_AGAIN_S, now_s
        if not leases or now_s < self._next_s:
            return False
        self._next_s = now_s + self._pause_s
        self._pause_s = min(_ASK_AGAIN_AT_MOST_S, self._pause_s * 2)
        return True


def requests_for(leases: Iterable[int], node: int) -> Iterator[str]:
    """Return the notifications that ask the holders of these leases to give them to `node`."""
    asked = list(leases)
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        yield f"{_GIVE}{','.join(map(str, asked[start : start + _ASKED_AT_ONCE]))} to {node}"
