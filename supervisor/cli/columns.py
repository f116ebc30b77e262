"""Text in columns, cut off at the edge of a terminal but not in a file."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    edge = shutil.get_terminal_size((120, 24)).columns if is_terminal() else None
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [line[:edge] for line in lines]


def is_terminal() -> bool:
    """Whether standard output is one."""
    return sys.stdout is not None and sys.stdout.isatty()
