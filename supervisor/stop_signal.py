"""The request that a worker stops, as the worker and its database calls see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class StopSignal:
    """Requests once that a worker stops, and counts the database work it has in flight.

    Attributes:
        is_set: Whether the worker is to stop; true from then on.
        in_flight: Database calls, connections and transactions the worker is inside of.
        is_cooperative: Whether the worker has shown that it notices a stop by itself (it read
            `ctx.stopping` or slept with `ctx.sleep`), so that it is worth waiting for.
        cancelled_tasks: Tasks of the worker that a `ctx.sleep` has cancelled since the stop.
    """

    __slots__ = ("_notices", "cancelled_tasks", "in_flight", "is_cooperative", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self.is_cooperative = False
        self.cancelled_tasks: tuple[object, ...] = ()
        self.in_flight = 0
        # A worker may have thousands of calls under way, each with a notice; most have none.
        self._notices: dict[Callable[[], object], None] | None = None

    def set(self) -> None:
        """Request the stop."""
        self.is_set = True
        self._wake()

    def call_started(self) -> None:
        """Count a database call that begins."""
        self.in_flight += 1

    def call_finished(self) -> None:
        """Count a database call that ended."""
        self.in_flight -= 1
        if self.in_flight == 0 and self.is_set:
            self._wake()

    def add_callback(self, notice: Callable[[], object]) -> None:
        """Call `notice` at once at each change, without the turn of the loop that a waiting task needs.

        A change is the stop itself and, after it, each end of the last database call in flight.
        """
        if self._notices is None:
            self._notices = {}
        self._notices[notice] = None

    def remove_callback(self, notice: Callable[[], object]) -> None:
        """Call `notice` no more."""
        if self._notices is not None:
            self._notices.pop(notice, None)

    def _wake(self) -> None:
        for notice in tuple(self._notices or ()):
            notice()
