"""Ends what a killed daemon's server has left running. Only the holder of the store's lock may call this."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.errors import EmbeddedDatabaseFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supervisor.clock import Clock


_POLL_S = 0.02


async def end_orphans(data: Path, *, clock: Clock, limit_s: float = 30.0) -> int:
    """End the PostgreSQL processes of the data directory, and return how many there were.

    A postmaster is asked for a fast shutdown, for most of the limit; whatever still runs then is killed.

    Raises:
        EmbeddedDatabaseFailed: Some process cannot be ended.
    """
    count = len(processes_of(data))
    for number, share in ((signal.SIGINT, 0.7), (signal.SIGQUIT, 0.2), (signal.SIGKILL, 0.1)):
        if await _end(data, number, limit_s * share, clock=clock):
            return count
    survivors = ", ".join(map(str, processes_of(data)))
    raise EmbeddedDatabaseFailed(f"processes {survivors} of an earlier embedded server in {data} cannot be ended")


def remove_pid_files(data: Path) -> None:
    """Remove stale pid files: PostgreSQL takes any process with a reused number for their owner.

    Only the holder of the server's lock knows that they are stale.
    """
    for stale in (data / "postmaster.pid", data.parent / ".s.PGSQL.5432.lock"):
        stale.unlink(missing_ok=True)


def processes_of(data: Path) -> tuple[int, ...]:
    """Return the PostgreSQL processes whose working directory is `data`: the postmaster and its children.

    The pid file alone would not do: its number may have been given to another process, and children outlive a killed
    postmaster for a moment, with its shared memory.
    """
    try:
        ours = data.stat()
    except OSError:
        return ()
    return tuple(pid for pid in _pids() if _is_postgres_in(Path("/proc", str(pid)), ours))


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names, not paths


def _is_postgres_in(process: Path, data: os.stat_result) -> bool:
    try:
        place = (process / "cwd").stat()
        program = os.readlink(process / "exe")  # noqa: PTH115 - " (deleted)" may follow after an upgrade
    except OSError:
        return False  # gone meanwhile, or another user's
    is_ours = (place.st_dev, place.st_ino) == (data.st_dev, data.st_ino)
    # The directory may be the working directory of an administrator's shell, too.
    return is_ours and os.path.basename(program.removesuffix(" (deleted)")) == "postgres"  # noqa: PTH119


async def _end(data: Path, number: signal.Signals, limit_s: float, *, clock: Clock) -> bool:
    """Signal the processes and return whether all have ended within the limit."""
    deadline_s = clock.now_s() + limit_s
    for pid in _leaders(processes_of(data)) if number != signal.SIGKILL else processes_of(data):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    while processes_of(data):
        if clock.now_s() >= deadline_s:
            return False
        await clock.sleep(_POLL_S)
    return True


def _leaders(pids: tuple[int, ...]) -> tuple[int, ...]:
    """Return those whose parent is none of them: the postmaster, or children that have lost it."""
    return tuple(pid for pid in pids if _parent(pid) not in pids)


def _parent(pid: int) -> int:
    try:
        # The second field is the name in parentheses and may contain anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
