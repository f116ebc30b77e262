"""Notifications on the node's session: leases released, leases requested, and channels that others subscribe to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from supervisor.clock import Clock
    from supervisor.leases.registration import NodeSession

CHANNEL = "supervisor_lease"
_REQUEST = "give "
# A notification carries less than 8,000 bytes.
_LEASES_PER_REQUEST = 500
# A worker may take its time to end, and a finished one keeps its lease.
_RETRY_S = 0.4
_MAX_RETRY_S = 15.0


class Notifications:
    """The channels of a node; it listens again on each new session."""

    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._requests: dict[int, int] = {}
        self._callbacks: dict[str, list[Callable[[str], object]]] = {CHANNEL: [self._on_lease_payload]}
        self._current: NodeSession | None = None
        self._listening: set[str] = set()

    def subscribe(self, channel: str, callback: Callable[[str], object]) -> None:
        """Call `callback` with the payload of each notification, and with "" when some may have been missed."""
        self._callbacks.setdefault(channel, []).append(callback)
        self._listening.discard(channel)
        self._on_change()

    async def listen(self, current: NodeSession) -> None:
        """Listen to every channel on this session; raises as `Session.execute` does."""
        if self._current is not current:
            self._current = current
            self._listening.clear()
        while missing := self._callbacks.keys() - self._listening:
            channel = missing.pop()
            await current.session.listen(channel, self._on_notification)
            self._listening.add(channel)
            for callback in tuple(self._callbacks[channel]):
                callback("")

    async def unlisten_all(self, current: NodeSession) -> None:
        """Listen to no channel any more; raises as `Session.execute` does."""
        while self._listening:
            channel = self._listening.pop()
            await current.session.execute(partial(_unlisten, channel=channel, callback=self._on_notification))

    def take_requests(self) -> dict[int, int]:
        """Return which node has requested which lease since the last call."""
        requests, self._requests = self._requests, {}
        return requests

    def _on_notification(self, _connection: object, pid: int, channel: str, payload: str) -> None:
        if channel == CHANNEL and self._current is not None and pid == self._current.backend.pid:
            return  # this node's own
        for callback in tuple(self._callbacks.get(channel, ())):
            callback(payload)

    def _on_lease_payload(self, payload: str) -> None:
        if payload.startswith(_REQUEST):
            leases, _, node = payload.removeprefix(_REQUEST).partition(" to ")
            if node.isdecimal():
                self._requests |= {int(lease): int(node) for lease in leases.split(",") if lease.isdecimal()}
        self._on_change()


async def _unlisten(connection: Any, *, channel: str, callback: Callable[..., object]) -> None:
    await connection.remove_listener(channel, callback)


class RequestBackoff:
    """When to request leases: at once, then at growing intervals as long as they are the same and in vain."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._requested: tuple[int, ...] = ()
        self._pause_s = _RETRY_S
        self._next_s = float("-inf")

    def is_due(self, leases: tuple[int, ...]) -> bool:
        """Whether to request these leases now; if so, they count as requested."""
        now_s = self._clock.now_s()
        if leases != self._requested:
            self._requested, self._pause_s, self._next_s = leases, _RETRY_S, now_s
        if not leases or now_s < self._next_s:
            return False
        self._next_s = now_s + self._pause_s
        self._pause_s = min(_MAX_RETRY_S, self._pause_s * 2)
        return True


def request_payloads(leases: Iterable[int], node: int) -> Iterator[str]:
    """Return the notifications that request these leases for `node` from their holders."""
    requested = list(leases)
    for start in range(0, len(requested), _LEASES_PER_REQUEST):
        yield f"{_REQUEST}{','.join(map(str, requested[start : start + _LEASES_PER_REQUEST]))} to {node}"
