"""The log of an embedded server: one file, which is cut when it has grown long."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from supervisor.database.embedded.store_error import store_error

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO


NAME = "server.log"
LIMIT_BYTES = 8 * 2**20


def open_log(folder: Path) -> BinaryIO:
    """Open the server's log, emptied if it has grown long; the server appends, so it goes on at the new end.

    Raises:
        EmbeddedDatabaseMisconfigured: It cannot be written.
        EmbeddedDatabaseFailed: The disk is full, or something else that may pass.
    """
    # Root does not follow a link that the server's user may have put there.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(folder / NAME, flags, 0o600)
    except OSError as error:
        raise store_error(f"the embedded database cannot write {folder / NAME}", error) from error
    if os.fstat(descriptor).st_size > LIMIT_BYTES:
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "ab")


def last_lines(folder: Path, since_bytes: int) -> str:
    """Return the end of what has been said since the log was so long."""
    said = (folder / NAME).read_bytes()[since_bytes:].decode(errors="replace").splitlines()
    # What went wrong comes last, often as LOG before the FATAL; time and process are of no interest here.
    return "; ".join(line.partition("] ")[2] or line for line in said[-4:]) or f"see {folder / NAME}"
