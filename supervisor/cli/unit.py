"""`unit`: a hardened systemd unit for one configuration."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING

from supervisor.cli.output import print_error, print_out
from supervisor.config.loader import read_config
from supervisor.config.model import EmbeddedStore
from supervisor.config.paths import absolute, find_config
from supervisor.errors import ConfigError
from supervisor.exit_status import ExitStatus
from supervisor.systemd.unit import Installation, render_unit, unit_name
from supervisor.systemd.unit_access import access_problems, path_to_bind, this_command, this_python

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.config.model import Config

# Under systemd the connection string may come from a credential, which an administrator's shell does not have.
_ANY_DSN = {"PGSUPERVISOR__DATABASE__DSN": "postgresql:///"}


def print_unit(config_path: str | None) -> int:
    """Print the unit; say on stderr where it belongs and what keeps it from working.

    Raises:
        ConfigError: The configuration is wrong.
    """
    config = _read(find_config(config_path, os.environ))
    installation = _installation(config)
    print_out(render_unit(installation).rstrip("\n"))
    name = unit_name(config.name)
    print_error(f"# Put this into /etc/systemd/system/{name}, then: systemctl daemon-reload")
    for hindrance in access_problems(installation.everything_read):
        print_error(f"# It cannot work yet: {hindrance}")
    return ExitStatus.OK


def _read(path: Path) -> Config:
    try:
        return read_config(path, os.environ)
    except ConfigError:
        return read_config(path, {**os.environ, **_ANY_DSN})


def _installation(config: Config) -> Installation:
    target = config.database.target
    store = target.path if isinstance(target, EmbeddedStore) else None
    return Installation(
        name=config.name,
        command=this_command(),
        config=config.path,
        reads=(*this_python(), *config.daemon.python_path, path_to_bind(config.path)),
        writes=(store,) if store is not None else (),
        dsn_file=_dsn_file(config.path),
        stop_timeout_s=max(
            [config.daemon.stop_timeout_s, *(worker.stop_timeout_s for worker in config.workers.values())]
        ),
    )


def _dsn_file(path: Path) -> Path | None:
    """Return the file that `dsn_file` names: systemd reads it as root, for a daemon that cannot."""
    named = tomllib.loads(path.read_text("utf-8")).get("database", {}).get("dsn_file")
    return absolute(named, path.parent) if named else None
