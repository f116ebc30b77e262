"""A lease that comes and goes as the test says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from supervisor.leases.lease import Lease, Standing

if TYPE_CHECKING:
    from collections.abc import Callable


# As `status` shows them.
_SHOWN = {Standing.ABSENT: "absent", Standing.HELD: "held", Standing.RECALLED: "recalled", Standing.LOST: "lost"}


class ScriptedTenure:
    """One lease as a runner sees it; the test plays the node.

    Attributes:
        said: What the runner said, in order: `offer`, `decline`, `vacate`.
        epoch: The epoch of the last acquisition, here or elsewhere.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.standing = Standing.ABSENT
        self.lease: Lease | None = None
        self.said: list[str] = []
        self.epoch = 0
        self._notice: Callable[[], object] | None = None

    # What the node does

    def give(self) -> None:
        """Acquire it for this node."""
        self.epoch += 1
        self.lease = Lease(self.name, self.epoch, 1, UUID(int=self.epoch))
        self._become(Standing.HELD)

    def recall(self) -> None:
        """Ask for it back."""
        self._become(Standing.RECALLED)

    def lose(self) -> None:
        """Find it gone."""
        self._become(Standing.LOST)

    def pass_elsewhere(self) -> None:
        """Let another node hold it for a while."""
        assert self.standing is Standing.ABSENT
        self.epoch += 1

    # What the runner says

    def heed(self, notice: Callable[[], object] | None) -> None:
        self._notice = notice

    def offer(self) -> None:
        self.said.append("offer")

    def decline(self) -> None:
        self.said.append("decline")
        if self.standing is Standing.HELD:
            self._become(Standing.RECALLED)

    def vacate(self) -> None:
        if self.standing in (Standing.RECALLED, Standing.LOST):
            self.said.append("vacate")
            self.lease = None
            self._become(Standing.ABSENT)

    def describe(self) -> dict[str, Any]:
        holder = {"name": "b@host:1", "host": "host", "pid": 1, "since": datetime(2026, 1, 1, tzinfo=UTC)}
        return {
            "lease": self.name,
            "standing": _SHOWN[self.standing],
            "epoch": self.lease.epoch if self.lease is not None else None,
            "holder": holder if self.standing is Standing.ABSENT else None,
        }

    def found_lost(self, reason: str) -> None:  # noqa: ARG002 - a node would tell it
        self._become(Standing.LOST)

    def _become(self, standing: Standing) -> None:
        self.standing = standing
        if self._notice is not None:
            self._notice()
