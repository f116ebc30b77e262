"""The daemon as a process, for the tests of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.launching import Launcher, launching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """A starter of daemons."""
    with launching(tmp_path) as launcher:
        yield launcher
