"""Configurations written for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.config.loader import read_config
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from supervisor.config.model import Config

DSN = 'dsn = "postgresql://app@db.example/app"'
DATABASE = f"[database]\n{DSN}\n"
WORKER = '[workers.mail]\nrun = "app.mail:send"\n'


def write_config(folder: Path, text: str) -> Path:
    """Write a configuration into a folder and return its path."""
    path = folder / "app.toml"
    path.write_text(text, encoding="utf-8")
    return path


def config_of(folder: Path, text: str, **environ: str) -> Config:
    """Return the configuration that a text gives, with nothing but `environ` around it."""
    return read_config(write_config(folder, text), environ)


def faults_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the faults of a text as sentences, the file's path shown as `FILE`."""
    path = write_config(folder, text)
    try:
        read_config(path, environ or {})
    except ConfigError as error:
        return [str(fault).replace(str(path), "FILE") for fault in error.faults]
    return []
