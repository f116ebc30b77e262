"""The pruning of old events, by every daemon that is asked for it, with or without workers that need a lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.daemon.daemon import Daemon

_TASK = "events: prune"


def prune_if_asked(daemon: Daemon) -> None:
    """Begin to prune, unless events are kept for ever, or it has begun; what a reload says later is obeyed as it is."""
    if daemon.prunes or daemon.database is None or daemon.config.events.keep_s <= 0:
        return
    from supervisor.events.pruning import EventPruner  # noqa: PLC0415 - most daemons keep their events

    pruner = EventPruner(
        daemon.database, keep_s=lambda: daemon.config.events.keep_s, clock=daemon.clock, tasks=daemon.tasks
    )
    pruner.start()
    daemon.prunes = True


def prune_no_more(daemon: Daemon) -> None:
    """End it."""
    daemon.tasks.cancel(_TASK)
