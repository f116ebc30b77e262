"""The two locks of an embedded database, both advisory `flock`s, which end with the processes that hold them.

The state directory's lock (`StateLock`) is the daemon's: one daemon at a time, and a waiting daemon knows its holder.
The note in the file is for people: it is believed only while the process it names is the one that wrote it.

The server's lock is held by every process of a running server: the postmaster inherits a locked descriptor and its
children inherit it from there, so the kernel itself says when the last process of a data directory has ended. That
holds where processes cannot be searched for: a killed daemon's server is invisible to a successor in another unit or
container, which has a /proc, users and shared memory of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.clock import done_within
from supervisor.database.embedded.store_error import store_error
from supervisor.errors import EmbeddedDatabaseFailed, EmbeddedDatabaseLocked
from supervisor.threads import start_thread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from supervisor.clock import Clock


SERVER_LOCK = "server.lock"
_POLL_S = 0.02
GIVE_UP_S = 120.0
_FIRST_NOTICE_S = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock; each part is None when it is not known for certain.

    Attributes:
        pid: The process.
        host: Its machine.
        since: When it took the lock, in ISO 8601.
        start_ticks: When the process began, in the kernel's ticks: a reused pid has another.
    """

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    start_ticks: int | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        return f"process {self.pid} on {self.host}, since {self.since}"


def next_notice_s(waited_s: float) -> float:
    """Return how long to wait before the next notice: 5 s, then as long as it has lasted already."""
    return max(_FIRST_NOTICE_S, waited_s)


class StateLock:
    """The lock of a directory; the object is free, holding, and free again any number of times."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / "lock"
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def try_acquire(self) -> Holder | None:
        """Take the lock and return None, or return its holder.

        Raises:
            EmbeddedDatabaseMisconfigured: The directory cannot be made or written, or its file system has no locks.
            EmbeddedDatabaseFailed: The disk is full, or something else that may pass.
        """
        with self._as_store_error():
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    return _read_note(descriptor)
                finally:
                    os.close(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._keep(descriptor)
            return None

    async def acquire(
        self,
        *,
        clock: Clock,
        give_up_s: float = GIVE_UP_S,
        on_waiting: Callable[[Holder, float], object] = lambda _holder, _waited_s: None,
    ) -> None:
        """Take the lock, waiting until its holder releases it; the kernel wakes us within a millisecond of that.

        Args:
            clock: For the limit and the times of the notices.
            give_up_s: How long to wait. A predecessor may drain for its whole `stop_timeout`.
            on_waiting: Called with the holder and the seconds waited: at once when the lock is found taken, then at
                growing distances.

        Raises:
            EmbeddedDatabaseLocked: It stayed taken.
            EmbeddedDatabaseMisconfigured: See `try_acquire`.
            EmbeddedDatabaseFailed: See `try_acquire`.
        """
        began_s = clock.now_s()
        if (holder := self.try_acquire()) is None:
            return
        handed_over = self._flock_in_thread()
        try:
            await self._wait(handed_over, holder, began_s, give_up_s, on_waiting, clock=clock)
        finally:
            # Cancelled during the handover: the descriptor that nobody took is closed.
            if not handed_over.cancel() and handed_over.exception() is None and not self.is_held:
                os.close(handed_over.result())

    def release(self) -> None:
        """Release the lock, if held."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    async def _wait(
        self,
        handed_over: asyncio.Future[int],
        holder: Holder,
        began_s: float,
        give_up_s: float,
        on_waiting: Callable[[Holder, float], object],
        *,
        clock: Clock,
    ) -> None:
        """Wait for the thread to get the lock, and keep it."""
        while not handed_over.done():
            waited_s = clock.now_s() - began_s
            if waited_s >= give_up_s:
                raise EmbeddedDatabaseLocked(f"{self.directory} is in use by {holder}: gave up after {waited_s:.0f} s")
            on_waiting(holder, waited_s)
            await done_within(handed_over, min(next_notice_s(waited_s), give_up_s - waited_s), clock=clock)
        with self._as_store_error():
            self._keep(handed_over.result())

    def _flock_in_thread(self) -> asyncio.Future[int]:
        """Return a future of a descriptor that holds the lock.

        A blocking flock cannot be interrupted: a thread whose future was cancelled releases the lock once it has it.
        """
        with self._as_store_error():
            descriptor = self._open()

        def lock() -> int:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

        return start_thread(lock, name="state-lock", discard=os.close)

    def _keep(self, descriptor: int) -> None:
        """Note the new holder in the file."""
        self._descriptor = descriptor
        note = Holder(os.getpid(), os.uname().nodename, _now(), _start_ticks(os.getpid()))
        with contextlib.suppress(OSError):  # a full disk costs the note, not the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(note)).encode() + b"\n", 0)

    def _open(self) -> int:
        if not self.directory.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            # Root's may be entered, so that an embedded server that is not root gets to its own folder in it.
            self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
        return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @contextlib.contextmanager
    def _as_store_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise store_error(f"the state directory {self.directory} cannot be locked", error) from error


def _read_note(descriptor: int) -> Holder:
    """Return what the note says of the holder, nothing if it cannot be true."""
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        holder = Holder(int(note["pid"]), str(note["host"]), str(note["since"]), note["start_ticks"])
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()
    # Of another machine's process nothing can be known here.
    return holder if holder.host != os.uname().nodename or _is_running(holder) else Holder()


def _is_running(holder: Holder) -> bool:
    """Whether the holder's process may be the one that runs under its number."""
    if (start_ticks := _start_ticks(holder.pid)) is not None:
        return start_ticks == holder.start_ticks
    # Hardened units do not see one another's processes, but may ask whether there is one.
    try:
        os.kill(holder.pid or 0, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _start_ticks(pid: int | None) -> int | None:
    """Return when a process began, in the kernel's ticks since boot; None when there is none of this number."""
    try:
        # The second field is the name in parentheses and may contain anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


async def acquire_server_lock(folder: Path, *, clock: Clock, timeout_s: float) -> int:
    """Wait until no server of the store runs any more, and return a descriptor that holds the lock for the next one.

    Raises:
        EmbeddedDatabaseFailed: One still runs after `timeout_s`.
        EmbeddedDatabaseMisconfigured: The lock cannot be made, or the file system has none.
    """
    descriptor = _open_server_lock(folder)
    deadline_s = clock.now_s() + timeout_s
    try:
        while not (is_ours := _try_flock(descriptor)) and clock.now_s() < deadline_s:
            await clock.sleep(_POLL_S)
    except BaseException:
        os.close(descriptor)
        raise
    if is_ours:
        return descriptor
    os.close(descriptor)
    raise EmbeddedDatabaseFailed(
        f"an earlier server of the embedded store in {folder}, or a program that it started, still runs after "
        f"{timeout_s:g} s where this daemon cannot end it, as in another unit or container: end it there"
    )


def is_server_running(folder: Path) -> bool:
    """Whether a server of the store runs, wherever that is."""
    if not folder.exists():
        return False
    descriptor = _open_server_lock(folder)
    try:
        return not _try_flock(descriptor)
    finally:
        os.close(descriptor)


def _open_server_lock(folder: Path) -> int:
    # Root does not follow a link that the server's user may have put there.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(folder / SERVER_LOCK, flags, 0o600)
    except OSError as error:
        raise store_error(f"the embedded database cannot lock {folder / SERVER_LOCK}", error) from error


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise store_error(f"the embedded database cannot lock its {SERVER_LOCK}", error) from error
    return True
