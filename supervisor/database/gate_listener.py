"""Who hears of the gate's moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from supervisor.database.connecting import Connected
    from supervisor.database.error_class import Failure
    from supervisor.database.gate import ConnectionMonitor


class DatabaseObserver(Protocol):
    """Who hears of the gate's moves, on the event loop and at once."""

    def on_down(self, failure: Failure, *, told: bool) -> None:
        """The database is away; `told` is false when an outage merely goes on after a flap."""

    def on_up(self, *, told: bool) -> None:
        """The database is there (again); `told` is false while it has yet to prove itself."""

    def on_stable(self) -> None:
        """A recovery after flaps has proven itself."""

    def on_status(self) -> None:
        """Something changed that a status line shows."""


class MonitorObserver(DatabaseObserver, Protocol):
    """Who also hears of what is no outage, in order to keep up with the gate."""

    def on_suspect_pool(self) -> None:
        """The gate's connection was found useless, and so may be every other one made like it."""

    def on_reconnected(self) -> None:
        """The gate's connection was made anew within its uptime, perhaps to another host."""


class SessionOwner(Protocol):
    """Who lives on the gate's own connection: a node, whose session it is."""

    def on_connected(self, gate: ConnectionMonitor, link: Connected) -> None:
        """There is a connection, a new one."""

    def on_disconnected(self, link: Connected) -> None:
        """The gate gives this connection up; the resident ends it once nothing rests on it any more."""

    async def check(self, link: Connected, *, is_routine: bool) -> Failure | None:
        """Return what is wrong with the connection; a matter of routine may be answered without asking the server."""


class NullObserver:
    """The listener of a gate that is not in force."""

    def on_down(self, failure: Failure, *, told: bool) -> None:
        """Ignore it."""

    def on_up(self, *, told: bool) -> None:
        """Ignore it."""

    def on_stable(self) -> None:
        """Ignore it."""

    def on_status(self) -> None:
        """Ignore it."""

    def on_suspect_pool(self) -> None:
        """Ignore it."""

    def on_reconnected(self) -> None:
        """Ignore it."""
