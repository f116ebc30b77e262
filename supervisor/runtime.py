"""The services that every part of the daemon is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from random import Random

    from supervisor.clock import Clock
    from supervisor.tasks import BackgroundTasks


class NotifierPort(Protocol):
    """What parts of the daemon may send to systemd."""

    @property
    def has_pending(self) -> bool:
        """Whether a message could not be sent yet and is kept."""

    def status(self, text: str, /) -> None:
        """Show `text` in `systemctl status`."""

    def extend(self, extend_s: float, /) -> None:
        """Ask systemd to wait `extend_s` seconds more."""

    def ready(self, status: str | None = None, /) -> None:
        """Report that the start, or a reload, is over."""

    def reloading(self) -> None:
        """Report that a reload has begun; `ready` has to follow, whatever its outcome."""

    def stopping(self, status: str | None = None, /) -> None:
        """Report that the stop has begun."""

    def failed(self, exit_status: int, /, *, status: str | None = None) -> None:
        """Report why the daemon is about to end."""


class JournalCounts(Protocol):
    """How many entries there were since the start."""

    @property
    def written(self) -> int:
        """Entries that were written."""

    @property
    def folded(self) -> int:
        """Entries left out because they were equal to others."""

    @property
    def dropped(self) -> int:
        """Entries that were lost."""


class JournalPort(Protocol):
    """What a reload may change of the journal, and what `status` shows of it."""

    @property
    def counts(self) -> JournalCounts:
        """How many entries were written, folded and dropped so far."""

    def set_level(self, level: str, /) -> None:
        """Leave out entries below `level`."""

    def set_format(self, log_format: str, /) -> None:
        """Write entries in another format."""


class Runtime(NamedTuple):
    """Services that are the same for every part of one daemon process.

    Attributes:
        rng: For jitter.
        notifier: systemd's notify socket.
    """

    clock: Clock
    rng: Random
    tasks: BackgroundTasks
    notifier: NotifierPort
    journal: JournalPort
