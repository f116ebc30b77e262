"""Who hears of the gate's moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from supervisor.database.connecting import Link
    from supervisor.database.error_class import Failure
    from supervisor.database.gate import Gate


class OutageListener(Protocol):
    """Who hears of the gate's moves, on the event loop and at once."""

    def went_down(self, failure: Failure, *, told: bool) -> None:
        """The database is away; `told` is false when an outage merely goes on after a flap."""

    def came_back(self, *, told: bool) -> None:
        """The database is there (again); `told` is false while it has yet to prove itself."""

    def settled(self) -> None:
        """A recovery after flaps has proven itself."""

    def progressed(self) -> None:
        """Something changed that a status line shows."""


class GateListener(OutageListener, Protocol):
    """Who also hears of what is no outage, in order to keep up with the gate."""

    def distrusted(self) -> None:
        """The gate's connection was found useless, and so may be every other one made like it."""

    def moved(self) -> None:
        """The gate's connection was made anew within its uptime, perhaps to another host."""


class Resident(Protocol):
    """Who lives on the gate's own connection: a node, whose session it is."""

    def linked(self, gate: Gate, link: Link) -> None:
        """There is a connection, a new one."""

    def parted(self, link: Link) -> None:
        """The gate gives this connection up; the resident ends it once nothing rests on it any more."""

    async def check(self, link: Link, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection; a matter of routine may be answered without asking the server."""


class Unheard:
    """The listener of a gate that is not in force."""

    def went_down(self, failure: Failure, *, told: bool) -> None:
        """Ignore it."""

    def came_back(self, *, told: bool) -> None:
        """Ignore it."""

    def settled(self) -> None:
        """Ignore it."""

    def progressed(self) -> None:
        """Ignore it."""

    def distrusted(self) -> None:
        """Ignore it."""

    def moved(self) -> None:
        """Ignore it."""
