"""pgsupervisor: a daemon that keeps asyncio workers running on PostgreSQL, under systemd.

The public names are loaded when they are first used, so that importing a worker's module costs
nothing and the daemon starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.errors import ConfigError, DatabaseUnavailable, LeaseLost, SupervisorError
    from supervisor.events.append import append
    from supervisor.events.event import Event
    from supervisor.workers.context import Context

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Context",
    "DatabaseUnavailable",
    "Event",
    "LeaseLost",
    "SupervisorError",
    "__version__",
    "append",
]

_HOMES = {
    "ConfigError": "supervisor.errors",
    "Context": "supervisor.workers.context",
    "DatabaseUnavailable": "supervisor.errors",
    "Event": "supervisor.events.event",
    "LeaseLost": "supervisor.errors",
    "SupervisorError": "supervisor.errors",
    "append": "supervisor.events.append",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
