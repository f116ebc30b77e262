"""Printing, tables, and streams that cannot be written to: they change neither what was done nor the exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_out(text: str) -> bool:
    """Print to standard output and return whether that worked."""
    return _write(text, "stdout")


def print_error(text: str) -> bool:
    """Print to standard error and return whether that worked."""
    return _write(text, "stderr")


def _write(text: str, name: str) -> bool:
    stream = getattr(sys, name)
    if stream is None:  # the shell closed it: `pgsupervisor status >&-`
        return False
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(name)
        return False
    return True


def flush() -> None:
    """Write out what argparse and others printed; the interpreter would make 120 of the exit status."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except AttributeError:
            continue
        except OSError:
            silence(name)


def silence(name: str) -> None:
    """Send a stream that cannot be written to nowhere: `pgsupervisor status | head`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, getattr(sys, name).fileno())
    os.close(nowhere)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines."""
    import shutil  # noqa: PLC0415 - every start loads this module, and only tables need it

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    edge = shutil.get_terminal_size((120, 24)).columns if is_terminal() else None
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [line[:edge] for line in lines]


def is_terminal() -> bool:
    """Whether standard output is one."""
    return sys.stdout is not None and sys.stdout.isatty()
