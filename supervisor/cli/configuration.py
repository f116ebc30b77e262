"""The configuration as the daemon's unit reads it, from an administrator's shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.config.loader import read_config
from supervisor.config.paths import find_config
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from supervisor.config.model import Config

# Where the shipped units' LoadCredential= finds the connection string.
_CREDENTIALS = Path("/etc/credstore")


def load_config(config_path: str | None) -> Config:
    """Return the configuration that a command line means.

    Raises:
        ConfigError: There is none, or it is wrong.
    """
    return read_with_unit_credentials(find_config(config_path, os.environ))


def read_with_unit_credentials(path: Path) -> Config:
    """Read the configuration as its unit does: a shell has no credential, but root can read its file.

    Raises:
        ConfigError: It is wrong.
    """
    try:
        return read_config(path, os.environ)
    except ConfigError:
        credential = _CREDENTIALS / f"pgsupervisor.{path.stem}.dsn"
        if "CREDENTIALS_DIRECTORY" in os.environ or not os.access(credential, os.R_OK):
            raise
        return read_config(path, {**os.environ, "PGSUPERVISOR__DATABASE__DSN_FILE": str(credential)})
