"""Every value of the model means something to the daemon."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import supervisor
from supervisor.config import model
from supervisor.config.kinds import KINDS

PACKAGE = Path(supervisor.__file__).parent
SECTIONS = (
    model.DaemonConfig,
    model.LogConfig,
    model.DatabaseConfig,
    model.ConnectPolicy,
    model.EventsConfig,
    model.WorkerSpec,
    *(kind.settings_type for kind in KINDS.values()),
)


def _attributes_read() -> set[str]:
    """Return the name of each attribute that code outside `config` reads, or what decides there about the kinds."""
    own = PACKAGE / "config"
    paths = [path for path in PACKAGE.rglob("*.py") if path.parent != own or path.name == "kinds.py"]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_is_read_by_the_daemon(section: Any) -> None:
    """A key that is declared, documented and read from the file, but used nowhere, is found."""
    unused = sorted(set(section._fields) - _attributes_read())
    assert not unused, f"{section.__name__}: no code outside supervisor/config reads {', '.join(unused)}"
