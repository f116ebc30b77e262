"""All stands of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.leases.stand import LeaseEvent, LeaseState, LocalLease

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

_BELIEVED = (LeaseState.HELD, LeaseState.REVOKING)


class LocalLeases:
    """The stands of a node by the names of their leases.

    Attributes:
        version: Grows with each change of any of them.
    """

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        on_change: Callable[[], object],
        on_lost: Callable[[LocalLease, str], object],
    ) -> None:
        self.version = 0
        self._now_s = now_s
        self._tell = on_change
        self._on_lost = on_lost
        self._by_name: dict[str, LocalLease] = {}
        self._by_id: dict[int, LocalLease] = {}

    def get(self, name: str) -> LocalLease:
        """Return the stand of this name, always the same one."""
        stand = self._by_name.get(name)
        if stand is None:
            stand = LocalLease(name, now_s=self._now_s, on_change=self._changed, on_lost=self._on_lost)
            self._by_name[name] = stand
        return stand

    def __iter__(self) -> Iterator[LocalLease]:
        return iter(self._by_name.values())

    def of(self, ids: tuple[int, ...]) -> list[LocalLease]:
        """Return the stands of these leases."""
        return [self._by_id[lease] for lease in ids if lease in self._by_id]

    def within(self, *states: LeaseState) -> list[LocalLease]:
        """Return the stands in one of these states."""
        return [stand for stand in self if stand.state in states]

    def believed(self) -> list[LocalLease]:
        """Return the stands under which a worker may run."""
        return self.within(*_BELIEVED)

    def occupied(self) -> list[LocalLease]:
        """Return the stands under which something runs, or whose locks are to be given back yet."""
        return [stand for stand in self if stand.state is not LeaseState.NOT_HELD]

    def waiting(self) -> list[LocalLease]:
        """Return the stands that want the lease and have not got it."""
        return [stand for stand in self if stand.is_offered and stand.state is LeaseState.NOT_HELD]

    def nameless(self) -> list[str]:
        """Return the leases that are wanted and whose rows are not known."""
        return [stand.name for stand in self if stand.is_offered and stand.id is None]

    def learn(self, ids: Mapping[str, int]) -> None:
        """Note the rows of leases.

        A row that was another lease's is left for the next time, until nothing is held any more under that one.
        """
        for name, lease in ids.items():
            stand = self._by_name.get(name)
            if stand is None or stand.id == lease:
                continue
            former = self._by_id.get(lease)
            if former is not None and former.state is not LeaseState.NOT_HELD:
                self._on_lost(former, f"its row is that of {name} now")
                former.happens(LeaseEvent.REVOKE)
                continue
            if former is not None:
                former.id = None
            if stand.id is not None:
                self._by_id.pop(stand.id, None)
            stand.id = lease
            self._by_id[lease] = stand
            self.version += 1

    def forget_rows(self, ids: Container[int] | None = None) -> None:
        """Look rows up again under which nothing is held: these, or all because it is another database."""
        for stand in self:
            if stand.id is not None and stand.state is LeaseState.NOT_HELD and (ids is None or stand.id in ids):
                if self._by_id.get(stand.id) is stand:  # in another database the number may be another's by now
                    del self._by_id[stand.id]
                stand.id = None
        self.version += 1

    def wanted(self) -> frozenset[int]:
        """Return the leases that this node is ready to hold."""
        return frozenset(stand.id for stand in self if stand.is_offered and stand.id is not None)

    def states(self) -> dict[int, LeaseState]:
        """Return the state of each lease whose row is known."""
        return {lease: stand.state for lease, stand in self._by_id.items()}

    def happens(self, ids: tuple[int, ...], event: LeaseEvent) -> list[LocalLease]:
        """Move the stands of these leases; return those that did."""
        return [stand for stand in self.of(ids) if stand.happens(event)]

    def _changed(self) -> None:
        self.version += 1
        self._tell()
