"""A part of the daemon, as start, stop, health, reload and status see it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from supervisor.config.model import Config


async def _nothing() -> None:
    """Do nothing."""


class Prepared(NamedTuple):
    """A new configuration that one component has validated; either `apply` or `discard` is called, once.

    Attributes:
        apply: Puts it in force.
        discard: Ends everything that the validation opened or started.
        finish: Called after every component has applied, in reverse order: ends what nothing uses any more.
        changes: What changes, in the words of the outcome: `added`, `changed` or `removed`, and names.
        is_empty: Whether nothing of this component changes.
    """

    apply: Callable[[], Awaitable[None]] = _nothing
    discard: Callable[[], Awaitable[None]] = _nothing
    finish: Callable[[], Awaitable[None]] = _nothing
    changes: Mapping[str, str] = MappingProxyType({})
    is_empty: bool = False


class Component(Protocol):
    """One part; a class that names this as its base inherits what it does not need.

    Attributes:
        name: For people: it is in the journal when the part is stuck or does not stop.
        stop_timeout_s: How long `stop` may take; the daemon stops without it after that.
    """

    name: str
    stop_timeout_s: float = 1.0

    async def start(self) -> None:
        """Start; the components before this one in the list have started.

        Raises:
            SupervisorError: The daemon cannot start; the exit status is the error's.
        """

    async def validate(self, old: Config, new: Config) -> Prepared:  # noqa: ARG002 - not every part has a configuration
        """Try everything of `new` that can fail: connect, bind, import. What is in force does not change.

        Args:
            old: The configuration in force.
            new: The one that a reload asks for.

        Raises:
            SupervisorError: The reload is refused; nothing was left open.
        """
        return Prepared(is_empty=True)

    def in_force(self, config: Config) -> Config:
        """Return `config` with the sections that this component owns as it really runs by them."""
        return config

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - not every part has something to stop
        """Stop until `deadline_s` by the clock; called also when `start` failed, was cancelled or never ran."""
        await _nothing()

    def is_healthy(self, now_s: float) -> bool:  # noqa: ARG002 - not every part has a loop
        """Whether its background tasks make progress; systemd's watchdog is fed only while every part's do."""
        return True

    def degraded(self) -> str | None:
        """Return why the daemon is degraded by this part; None: it is not."""
        return None

    def status(self) -> Mapping[str, object]:
        """Return what `status --json` shows of it; no secrets, durations in seconds."""
        return {}
