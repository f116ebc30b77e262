"""The folder of an ephemeral store: private, gone at the end, and cleared away after a daemon that was killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from supervisor.database import server_lock
from supervisor.database.state_lock import StateLock
from supervisor.database.store_folder import failure, make_parents
from supervisor.errors import EmbeddedDatabaseFailed, EmbeddedDatabaseMisconfigured

_PREFIX = "pgsupervisor-ephemeral"


class EphemeralFolder:
    """A folder in the temporary directory, or in the state directory where that cannot be written.

    Its lock tells a living daemon's folder from a dead one's.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._lock: StateLock | None = None
        self._folder: Path | None = None

    def make(self) -> Path:
        """Clear away what dead daemons have left, make a new folder and return the store's path in it.

        Raises:
            EmbeddedDatabaseMisconfigured: It can be made in neither place.
        """
        temporary = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - the folder's name is drawn at random
        problem: OSError | None = None
        for place in (temporary, self._state_dir):
            try:
                return self._make_in(place)
            except OSError as error:
                problem = error
        assert problem is not None  # noqa: S101 - two places, two failures
        raise failure("make its temporary folder", problem) from problem

    def remove(self) -> None:
        """Remove the folder, and let go of it."""
        if self._folder is not None and self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()
            self._folder = self._lock = None

    def _make_in(self, place: Path) -> Path:
        make_parents(place / "any")
        prefix = f"{_PREFIX}-{os.geteuid()}-"
        for leftover in place.glob(f"{prefix}*"):
            _clear(leftover)
        folder = place / f"{prefix}{os.urandom(6).hex()}"
        folder.mkdir(mode=0o700)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self._lock, self._folder = StateLock(folder), folder
        self._lock.try_acquire()
        return folder / "store"


def _clear(leftover: Path) -> None:
    if leftover.is_symlink() or leftover.lstat().st_uid != os.geteuid():
        return
    lock = StateLock(leftover)
    try:
        # A server that is still shutting down for its dead daemon keeps its folder until the next start.
        if lock.try_acquire() is None and not server_lock.is_held(leftover / "store"):
            shutil.rmtree(leftover, ignore_errors=True)
    except (EmbeddedDatabaseFailed, EmbeddedDatabaseMisconfigured):
        return
    finally:
        lock.release()
