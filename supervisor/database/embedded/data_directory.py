"""The folder of an embedded store: what may lie in it, and how its data directory comes to be.

    PATH/               0700, the server's user's own
    ├── data/           PostgreSQL's data directory
    ├── data.new/       while it is built; renamed when complete, thrown away after a failure
    ├── server.log      what the server said, cut when it has grown
    ├── server.lock     held by every process of a running server
    ├── .s.PGSQL.5432   the unix socket
    └── lock            of a store with a path of its own

The database speaks UTF-8, sorts by code point and knows letters as Unicode does (the builtin provider's C.UTF-8), so
that no update of the C library can change the order of an index. The one role is the superuser `postgres`, the
database is `postgres`, and every user who can enter the folder is trusted.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from supervisor.database.embedded.locks import StateLock, is_server_running
from supervisor.database.embedded.process import POSTGRES_MAJOR, Identity, initdb_identity, run_program
from supervisor.database.embedded.store_error import store_error
from supervisor.errors import EmbeddedDatabaseFailed, EmbeddedDatabaseMisconfigured

_KNOWN_FILES = {
    "data",
    "data.new",
    "server.log",
    "server.lock",
    "lock",
    "lost+found",
    ".s.PGSQL.5432",
    ".s.PGSQL.5432.lock",
}
_SETTINGS = {
    # Small, and silent while nobody asks for anything.
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "io_method": "sync",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_worker_slots": "3",
    "max_logical_replication_workers": "0",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    # Needs no /dev/shm and leaves nothing behind when killed.
    "dynamic_shared_memory_type": "mmap",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The worker itself logs a failing statement.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}


def data_owner(path: Path) -> tuple[int, int] | None:
    """Inspect the folder and return user and group of its data, None when there are none yet.

    Raises:
        EmbeddedDatabaseMisconfigured: It holds something else, another version's data, or cannot be read. Nothing has
            been touched.
    """
    try:
        return _inspect(path)
    except OSError as error:
        raise store_error(f"the embedded database cannot use {path}", error) from error


def _inspect(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    names = set(os.listdir(path))  # noqa: PTH208 - names, not paths
    data = path / "data"
    if "PG_VERSION" in names:
        raise EmbeddedDatabaseMisconfigured(
            f"{path} is itself a PostgreSQL data directory, not the folder of an embedded store: name another"
        )
    if "data" not in names or not os.listdir(data):  # noqa: PTH208
        if strangers := sorted(names - _KNOWN_FILES):
            raise EmbeddedDatabaseMisconfigured(
                f"{path} is not empty ({', '.join(strangers[:3])}) and holds no embedded store: name an empty folder"
            )
        return None
    if not (data / "PG_VERSION").exists():
        raise EmbeddedDatabaseMisconfigured(
            f"{data} is not empty and no PostgreSQL data directory: move it away or name another folder"
        )
    version = (data / "PG_VERSION").read_text().strip()
    if version != POSTGRES_MAJOR:
        raise EmbeddedDatabaseMisconfigured(
            f"{data} was made by PostgreSQL {version} and this is {POSTGRES_MAJOR}: nothing was changed. "
            f"Move it over with pg_dump of version {version}, or name another folder"
        )
    owner = data.stat()
    if os.geteuid() not in (0, owner.st_uid):
        raise EmbeddedDatabaseMisconfigured(
            f"{data} belongs to user {owner.st_uid}: run the daemon as that user, or give it the folder"
        )
    return owner.st_uid, owner.st_gid


def prepare(path: Path, identity: Identity) -> None:
    """Make the folder if need be, and give it to the server's user alone.

    Raises:
        EmbeddedDatabaseMisconfigured: It cannot be made or written.
        EmbeddedDatabaseFailed: The disk is full, or something else that may pass.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid != identity.uid:
            os.chown(path, identity.uid, identity.gid)
        path.chmod(0o700)
        if not os.access(path, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))  # noqa: TRY301 - one way out
    except OSError as error:
        raise store_error(f"the embedded database cannot make {path}", error) from error


def make_parents(path: Path) -> None:
    """Make the folders above `path`. Others may enter root's, so that a server that is not root gets through."""
    for folder in reversed(path.parents):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


async def initdb(path: Path, programs: Path, identity: Identity, *, durable: bool = True) -> None:
    """Build the data directory beside its place and move it there when it is complete.

    Raises:
        EmbeddedDatabaseFailed: initdb failed; nothing is left of it.
    """
    unfinished, data = path / "data.new", path / "data"
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        if unfinished.stat().st_uid != identity.uid:  # a hardened unit may not even ask for what is so already
            os.chown(unfinished, identity.uid, identity.gid, follow_symlinks=False)
        await _run_initdb(unfinished, programs, identity, durable=durable)
        if data.exists():
            data.rmdir()
        unfinished.rename(data)
        _sync(path)
    except OSError as error:
        raise store_error(f"the embedded database cannot be made in {path}", error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


async def _run_initdb(data: Path, programs: Path, identity: Identity, *, durable: bool) -> None:
    # wal_level is set for a server without replication; initdb itself would refuse WAL senders beside it.
    settings = [f"--set={name}={value}" for name, value in _SETTINGS.items()]
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    options = ["--username=postgres", "--auth=trust", "--wal-segsize=4", *locale, *([] if durable else ["--no-sync"])]
    builder = initdb_identity(identity)
    status, said = await run_program(builder, programs / "initdb", f"--pgdata={data}", *options, *settings)
    if status != 0:
        lines = [line for line in said.splitlines() if "error:" in line or "FATAL" in line or "PANIC" in line]
        why = "; ".join(lines) or said[-500:].strip()
        if builder is not identity:
            why += (
                f". PostgreSQL's initdb needs a name for user {identity.uid}: an entry in /etc/passwd or, "
                "under DynamicUser=, libnss-systemd"
            )
        raise EmbeddedDatabaseFailed(f"the embedded store cannot be made in {data.parent}: {why}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_PREFIX = "pgsupervisor-ephemeral"


class EphemeralFolder:
    """A folder in the temporary directory, or in the state directory where that cannot be written.

    Its lock shows whether the daemon that made it is alive.
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
        raise store_error("the embedded database cannot make its temporary folder", problem) from problem

    def remove(self) -> None:
        """Remove the folder, and release it."""
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
        if lock.try_acquire() is None and not is_server_running(leftover / "store"):
            shutil.rmtree(leftover, ignore_errors=True)
    except (EmbeddedDatabaseFailed, EmbeddedDatabaseMisconfigured):
        return
    finally:
        lock.release()
