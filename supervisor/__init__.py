"""pgsupervisor: a daemon that keeps asyncio workers running on PostgreSQL, under systemd.

The public names are loaded when they are first used, so that importing a worker's module costs
nothing and the daemon starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.errors import ConfigError, DatabaseUnavailable, SupervisorError
    from supervisor.workers.context import Context

__version__ = "0.1.0"

__all__ = ["ConfigError", "Context", "DatabaseUnavailable", "SupervisorError", "__version__"]

_HOMES = {
    "ConfigError": "supervisor.errors",
    "Context": "supervisor.workers.context",
    "DatabaseUnavailable": "supervisor.errors",
    "SupervisorError": "supervisor.errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
