"""What every part of the daemon is given: time, chance, background tasks, and the two ways to be heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.tasks import BackgroundTasks


class NotifierPort(Protocol):
    """What parts of the daemon may send to systemd."""

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`."""

    def extend(self, extend_s: float) -> None:
        """Ask systemd to wait `extend_s` seconds more."""


class JournalPort(Protocol):
    """What a reload may change of the journal."""

    def set_level(self, level: str) -> None:
        """Leave out entries below `level`."""

    def set_format(self, format: str) -> None:  # noqa: A002 - the name of the configuration key
        """Write entries in another format."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Services that are the same for every part of one daemon process.

    Attributes:
        clock: Time.
        rng: Chance, for jitter.
        tasks: Where background tasks start.
        notifier: systemd's notify socket.
        journal: The process's journal.
    """

    clock: Clock
    rng: Random
    tasks: BackgroundTasks
    notifier: NotifierPort
    journal: JournalPort
