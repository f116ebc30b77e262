"""What a command prints; that nobody reads it changes neither what was done nor the exit status."""

from __future__ import annotations

import os
import sys


def show(text: str) -> bool:
    """Print to standard output and return whether anybody can read it."""
    return _write(text, "stdout")


def complain(text: str) -> bool:
    """Print to standard error and return whether anybody can read it."""
    return _write(text, "stderr")


def _write(text: str, name: str) -> bool:
    stream = getattr(sys, name)
    if stream is None:  # the shell closed it: `pgsupervisor status >&-`
        return False
    try:
        print(text, file=stream, flush=True)
    except OSError:
        hush(name)
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
            hush(name)


def hush(name: str) -> None:
    """Send a stream that cannot be written to nowhere: `pgsupervisor status | head`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, getattr(sys, name).fileno())
    os.close(nowhere)
