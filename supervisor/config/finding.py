"""Which file is the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.config.location import from_here
from supervisor.config.toml_file import cannot_be_read
from supervisor.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "PGSUPERVISOR_CONFIG"
_HERE = "pgsupervisor.toml"
_SYSTEM = "/etc/pgsupervisor/pgsupervisor.toml"


def find_config(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the absolute path of the configuration file.

    Args:
        explicit: `-c`, as the user wrote it.
        environ: The environment.

    Raises:
        ConfigError: There is none; the fault says where it was looked for.
    """
    path = config_path(explicit, environ)
    if path is None:
        looked = f"{from_here(_HERE)} and {_SYSTEM}"
        problem = f"there is no configuration: looked for {looked}; write one, or name it with -c FILE or ${VARIABLE}"
        raise ConfigError(ConfigFault(_HERE, "", problem))
    try:
        path.stat()
    except OSError as error:
        asked = "-c" if explicit is not None else f"${VARIABLE}" if environ.get(VARIABLE) else None
        why = f" (named by {asked})" if asked else ""
        raise ConfigError(ConfigFault(str(path), "", f"{cannot_be_read(error)}{why}")) from None
    return path


def config_path(explicit: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return the path that is meant, whether or not it can be read; None: nothing names one and none is there."""
    named = explicit if explicit is not None else environ.get(VARIABLE)
    if named:
        return from_here(named)
    for candidate in (from_here(_HERE), Path(_SYSTEM)):
        try:
            candidate.stat()
        except PermissionError:
            # It may be there: better to say that it cannot be read than to go on to another one.
            return candidate
        except OSError:
            continue
        return candidate
    return None
