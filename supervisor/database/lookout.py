"""The cheap check between attempts: does anything begin to listen?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.database.endpoint import listening
from supervisor.database.error_class import ErrorClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.database.endpoint import Endpoint
    from supervisor.database.error_class import Failure

_LIMIT_S = 1.0


class Lookout:
    """Remembers which hosts accept, and notices when one begins to."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._accepting: frozenset[str] | None = None

    async def learn(self, failures: Sequence[Failure]) -> None:
        """Take from a failed attempt which hosts accept already."""
        absent = {failure.address for failure in failures if failure.error_class is ErrorClass.NOT_LISTENING}
        silent = {failure.address for failure in failures if failure.error_class is ErrorClass.TIMED_OUT}
        accepting = {failure.address for failure in failures} - absent - silent
        if silent:
            # A frozen server accepts, a black hole does not. Unless it is known which of the two this
            # is, the next check would mistake the frozen one for a change, again and again.
            known = self._accepting
            accepting |= silent & (await self._look() if known is None else known)
        self._accepting = frozenset(accepting)

    async def begins_to_accept(self) -> bool:
        """Look, and return whether a host accepts that did not before.

        The first look after a recovery only takes stock: it must not take a server that accepts all
        the while, and drops every connection, for one that has just come.
        """
        known = self._accepting
        self._accepting = await self._look()
        return known is not None and bool(self._accepting - known)

    def forget(self) -> None:
        """Know nothing any more: the outage is over."""
        self._accepting = None

    async def _look(self) -> frozenset[str]:
        return await listening(self._endpoints, limit_s=_LIMIT_S)
