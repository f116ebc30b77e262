"""The lock that a running server of an embedded store holds, with every one of its processes.

The postmaster inherits a locked descriptor and its children inherit it from there, so the kernel itself says when the
last process of a data directory has ended. That holds where processes cannot be looked for: a killed daemon's server
is invisible to a successor in another unit or container, which has a /proc, users and shared memory of its own.

The state directory's lock is another one: the daemon's, gone with the daemon, and not with its server.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from supervisor.database.store_folder import failure
from supervisor.errors import EmbeddedDatabaseFailed

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.clock import Clock

NAME = "server.lock"
_POLL_S = 0.02


async def take(folder: Path, *, clock: Clock, limit_s: float) -> int:
    """Wait until no server of the store runs any more, and return a descriptor that holds the lock for the next one.

    Raises:
        EmbeddedDatabaseFailed: One still runs after `limit_s`.
        EmbeddedDatabaseMisconfigured: The lock cannot be made, or the file system has none.
    """
    descriptor = _open(folder)
    deadline_s = clock.now_s() + limit_s
    try:
        while not (is_ours := _try(descriptor)) and clock.now_s() < deadline_s:
            await clock.sleep(_POLL_S)
    except BaseException:
        os.close(descriptor)
        raise
    if is_ours:
        return descriptor
    os.close(descriptor)
    raise EmbeddedDatabaseFailed(
        f"an earlier server of the embedded store in {folder}, or a program that it started, still runs after "
        f"{limit_s:g} s where this daemon cannot end it, as in another unit or container: end it there"
    )


def is_held(folder: Path) -> bool:
    """Whether a server of the store runs, wherever that is."""
    if not folder.exists():
        return False
    descriptor = _open(folder)
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    # Root does not follow a link that the server's user may have laid there.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(folder / NAME, flags, 0o600)
    except OSError as error:
        raise failure("lock its folder", error) from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        error.filename = NAME
        raise failure("lock its folder", error) from error
    return True
