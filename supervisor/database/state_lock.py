"""The lock of a state directory: one daemon at a time, and whoever waits knows for whom.

It is an advisory `flock`, which ends with the process that holds it, however that ends. The note in the file is for
people: it is believed only while the process it names is the one that wrote it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.clock import done_within
from supervisor.errors import EmbeddedDatabaseFailed, EmbeddedDatabaseLocked, EmbeddedDatabaseMisconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supervisor.clock import Clock

GIVE_UP_S = 120.0
_FIRST_NOTICE_S = 5.0
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; each part is None when nobody trustworthy says.

    Attributes:
        pid: The process.
        host: Its machine.
        since: When it took the lock, in ISO 8601.
        born: When the process began, in the kernel's ticks: a reused pid has another.
    """

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    born: int | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        return f"process {self.pid} on {self.host}, since {self.since}"


def next_notice_s(waited_s: float) -> float:
    """Return how long to wait before the next word about the waiting: 5 s, then as long as it has lasted already."""
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
        """Take the lock and return None, or return who holds it.

        Raises:
            EmbeddedDatabaseMisconfigured: The directory cannot be made or written, or its file system has no locks.
            EmbeddedDatabaseFailed: The disk is full, or something else that may pass.
        """
        with self._explained():
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
        """Take the lock, waiting for its holder to let go; the kernel wakes us within a millisecond of that.

        Args:
            clock: For the limit and the distances between words.
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
        handed_over = self._ask_in_thread()
        try:
            await self._wait(handed_over, holder, began_s, give_up_s, on_waiting, clock=clock)
        finally:
            # Cancelled in the very moment of the handover: the descriptor that nobody took is let go.
            if not handed_over.cancel() and handed_over.exception() is None and not self.is_held:
                os.close(handed_over.result())

    def release(self) -> None:
        """Let go of the lock, if held."""
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
        with self._explained():
            self._keep(handed_over.result())

    def _ask_in_thread(self) -> asyncio.Future[int]:
        """Return a future of a descriptor that holds the lock.

        A blocking flock cannot be called off: a thread whose future was cancelled lets go when it gets the lock.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        with self._explained():
            descriptor = self._open()

        def deliver(error: OSError | None) -> None:
            if error is None and not future.done():
                future.set_result(descriptor)
                return
            os.close(descriptor)
            if error is not None and not future.done():
                future.set_exception(error)

        def wait() -> None:
            error = None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as caught:
                error = caught
            try:
                loop.call_soon_threadsafe(deliver, error)
            except RuntimeError:  # the loop is closed by now
                os.close(descriptor)

        threading.Thread(target=wait, name="state-lock", daemon=True).start()
        return future

    def _keep(self, descriptor: int) -> None:
        """Note in the file who holds it now."""
        self._descriptor = descriptor
        note = Holder(os.getpid(), os.uname().nodename, _now(), _born(os.getpid()))
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
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = EmbeddedDatabaseFailed if error.errno in _PASSING else EmbeddedDatabaseMisconfigured
            raise kind(f"the state directory {self.directory} cannot be locked: {error.strerror}") from error


def _read_note(descriptor: int) -> Holder:
    """Return what the note says of the holder, nothing if it cannot be true."""
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        holder = Holder(int(note["pid"]), str(note["host"]), str(note["since"]), note["born"])
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()
    # Of another machine's process nothing can be known here.
    return holder if holder.host != os.uname().nodename or _lives(holder) else Holder()


def _lives(holder: Holder) -> bool:
    """Whether the holder's process may be the one that runs under its number."""
    if (born := _born(holder.pid)) is not None:
        return born == holder.born
    # Hardened units do not see one another's processes, but may ask whether there is one.
    try:
        os.kill(holder.pid or 0, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _born(pid: int | None) -> int | None:
    """Return when a process began, in the kernel's ticks since boot; None when there is none of this number."""
    try:
        # The second field is the name in parentheses and may contain anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _now() -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - for people, and only here

    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
