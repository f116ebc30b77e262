"""The embedded store: a PostgreSQL of the daemon's own that starts, ends, fails and comes back as it should."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from support.entries import Entries
from support.store import REPOSITORY, StoreDaemon, ask, is_alive, kill_all_below, running, wait_for_end

from supervisor.clock import SystemClock
from supervisor.config.model import EmbeddedStore
from supervisor.database.embedded import server_log
from supervisor.database.embedded.data_directory import EphemeralFolder
from supervisor.database.embedded.orphans import processes_of
from supervisor.database.embedded.process import NOBODY, Identity, identity_candidates, run_program
from supervisor.database.embedded.restart import supervise
from supervisor.database.embedded.server import EmbeddedServer, lock_folder
from supervisor.errors import EmbeddedDatabaseFailed, EmbeddedDatabaseMisconfigured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


def names_in(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def user_namespace(pid: int | str | None) -> Path:
    """Return the name of a process's user namespace."""
    return Path(f"/proc/{pid}/ns/user").readlink()


def status_of(pid: int | None) -> str:
    """Return what the kernel says of a process."""
    return Path(f"/proc/{pid}/status").read_text()


def files_of(pid: int) -> set[tuple[int, int]]:
    """Return device and inode of every file that a process has open."""
    entries = (entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.exists())
    return {(entry.stat().st_dev, entry.stat().st_ino) for entry in entries}


def run_tool(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(command, capture_output=True, check=False)


async def test_keeps_its_data(home: Path) -> None:
    """What was written is there after a stop and a start, at the same address."""
    async with running(home / "state") as server:
        dsn = server.dsn
        await ask(server, "create table kept as select 'É'::text as letter")
    assert not processes_of(server.path / "data")
    await server.start()
    try:
        assert server.dsn == dsn
        assert await ask(server, "select lower(letter) from kept") == "é"
        assert await ask(server, "show listen_addresses") == ""
        assert await ask(server, "show max_connections") == "50"
    finally:
        await server.stop()


async def test_path_of_its_own(home: Path) -> None:
    """A store with a path lies there and is guarded there; one without lies in the state directory."""
    spec = EmbeddedStore(path=home / "elsewhere" / "store")
    assert lock_folder(spec, home / "state") == spec.path
    assert lock_folder(EmbeddedStore(), home / "state") == home / "state"
    async with running(home / "state", spec, max_connections=27) as server:
        assert await ask(server, "show data_directory") == str(home / "elsewhere" / "store" / "data")
        assert await ask(server, "show max_connections") == "27"
    assert not (home / "state").exists()


@pytest.mark.parametrize("name", ["d" * 150, "with, comma", "ünï%20 @:/x"])
async def test_any_path(home: Path, name: str) -> None:
    """A path too long for a socket's address, or with letters that connection strings use, is reached all the same."""
    async with running(home / name) as server:
        assert await ask(server, "select 1") == 1


async def test_only_its_user_gets_in(home: Path) -> None:
    """Another local user can neither connect nor read."""
    async with running(home / "state") as server:
        assert server.path.stat().st_mode & 0o777 == 0o700
        assert (server.path / "data").stat().st_mode & 0o777 == 0o700
        if os.geteuid() == 0:
            other = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
            stat = run_tool(*other, "ls", server.path / ".s.PGSQL.5432")
            assert stat.returncode != 0
            assert b"Permission denied" in stat.stderr


@as_root
async def test_root_runs_it_as_nobody(home: Path) -> None:
    """Root's server runs as nobody where nobody gets to its files."""
    async with running(home / "state") as server:
        assert (server.path / "data" / "PG_VERSION").stat().st_uid == NOBODY
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status_of(server.pid)
        assert "Groups:\t \n" in status_of(server.pid)


@as_root
async def test_root_runs_it_in_a_namespace(home: Path) -> None:
    """Where nobody does not get to root's files, the server runs in a user namespace, and again at the next start."""
    (home / "private").mkdir(mode=0o700)
    for _ in range(2):
        async with running(home / "private" / "state") as server:
            assert (server.path / "data" / "PG_VERSION").stat().st_uid == 0
            assert user_namespace(server.pid) != user_namespace("self")
            assert await ask(server, "select 1") == 1
        (home / "private").chmod(0o755)  # what exists stays whose it is


@as_root
async def test_root_keeps_the_owner_of_data(home: Path) -> None:
    """Root runs the server of data that belong to a user as that user."""
    async with running(home / "state") as server:
        pass
    for path in (server.path, *server.path.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    async with running(home / "state") as server:
        assert "Uid:\t12345\t" in status_of(server.pid)


def test_candidates() -> None:
    """A user's server is the user's; root's is the data's owner's, nobody's, or root's in a namespace."""
    mapped = Identity(f"map:{NOBODY}", 0, 0)
    assert identity_candidates(1000, 1001, None) == (Identity("self", 1000, 1001),)
    assert identity_candidates(0, 0, None) == (Identity(f"user:{NOBODY}:{NOBODY}", NOBODY, NOBODY), mapped)
    assert identity_candidates(0, 0, (0, 0)) == (mapped,)
    assert identity_candidates(0, 0, (7, 8)) == (Identity("user:7:8", 7, 8),)


async def test_launch_lets_no_signal_stay_blocked_or_ignored() -> None:
    """A program starts with no signal blocked and none ignored, whatever the daemon has done to its own."""
    identity = Identity("self", os.geteuid(), os.getegid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status, said = await run_program(identity, Path("/bin/cat"), "/proc/self/status")
    finally:
        signal.signal(signal.SIGHUP, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert status == 0
    masks = {
        line.split()[0]: int(line.split()[1], 16) for line in said.splitlines() if line.startswith(("SigBlk", "SigIgn"))
    }
    # 32 and 33 are glibc's own, which some of its versions ignore in whatever make and others spawn.
    internal = 1 << 31 | 1 << 32
    assert (masks["SigBlk:"], masks["SigIgn:"] & ~internal) == (0, 0)


def _status(process: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("who", ["self", "another"])
def test_server_inherits_nothing(home: Path, run_daemon: Callable[..., StoreDaemon], loop: str, who: str) -> None:
    """The server sees no variable of systemd's or ours, no blocked or ignored signal and no file of the daemon's."""
    home.chmod(0o777)
    environ = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "CREDENTIALS_DIRECTORY": "/x",
        "PGDATA": "/x",
        "PGPORT": "1",
        "PGOPTIONS": "-c x",
        "PGSUPERVISOR__DATABASE__DSN": "secret",
    }
    # A namespace rather than nobody, who may not get to this Python.
    prefix = (
        ("unshare", "--user", "--map-user=12345", "--map-group=12345") if who == "another" and os.geteuid() == 0 else ()
    )
    daemon = run_daemon(loop=loop, prefix=prefix, environ=environ)
    process = Path(f"/proc/{daemon.server_pid}")
    names = {line.partition("=")[0] for line in (process / "environ").read_text().split("\0") if line}
    assert names <= {"PATH", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR"}
    # PostgreSQL blocks SIGURG itself, to read it from a descriptor, and every signal while it forks.
    deadline_s = time.monotonic() + 10
    while int((status := _status(process))["SigBlk"], 16) & ~(1 << (signal.SIGURG - 1)):
        assert time.monotonic() < deadline_s, status["SigBlk"]
    assert int(status["SigIgn"], 16) & 1 << (signal.SIGHUP - 1) == 0
    assert os.getsid(daemon.server_pid) == daemon.server_pid
    assert (process / "fd/0").readlink() == Path("/dev/null")
    lock = (home / "lock").stat()
    open_files = files_of(daemon.server_pid)
    assert (lock.st_dev, lock.st_ino) not in open_files
    server_lock = (daemon.path / "server.lock").stat()
    servers = processes_of(daemon.path / "data")
    assert all((server_lock.st_dev, server_lock.st_ino) in files_of(pid) for pid in servers)
    assert daemon.end() == 0
    assert not is_alive(daemon.server_pid)


class HastyClock(SystemClock):
    """A clock that notes what it is asked for, and hardly sleeps; only the minutes of a watch are real."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.asked.append(delay_s)
        await super().sleep(delay_s if delay_s >= 60 else min(delay_s, 0.01))


async def test_stop_is_bounded(home: Path) -> None:
    """A server that obeys nothing is killed when the stop's time is over, its children too."""
    clock = HastyClock()
    server = EmbeddedServer(EmbeddedStore(), home / "state", clock=clock)
    await server.start()
    children = processes_of(server.path / "data")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    await server.stop(10)
    assert clock.asked[-2:] == [10, 3]
    for pid in children:
        wait_for_end(pid)


@contextlib.asynccontextmanager
async def kept_running(state_dir: Path, clock: HastyClock) -> AsyncIterator[tuple[EmbeddedServer, Entries]]:
    """A server that is started again when it ends, and what is told of that."""
    async with running(state_dir, clock=clock) as server:
        keeping = asyncio.ensure_future(supervise(server, clock=clock))
        try:
            with Entries() as entries:
                yield server, entries
                await server.stop()
                await asyncio.wait_for(keeping, 30)
        finally:
            keeping.cancel()


async def test_runs_again_after_it_died(home: Path) -> None:
    """A server that dies is told as failed, started again after a growing delay, and reached at the same address."""
    clock = HastyClock()
    async with kept_running(home / "state", clock) as (server, entries):
        for times in (2, 3, 4):
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await started(server, times)
            assert await ask(server, "select 1") == 1
        assert [delay for delay in clock.asked if delay in {0.1, 0.2, 0.4, 0.8}] == [0.1, 0.2, 0.4]
    assert entries.events == ["store.failed", "store.started"] * 3  # nothing of the stop
    assert "SIGKILL" in str(entries.all[0].fields["reason"])
    for told in entries.of("store.started"):
        assert isinstance(took_s := told.fields["took_s"], float)
        assert took_s == round(took_s, 3)


async def test_goes_on_trying(home: Path) -> None:
    """A server that cannot be started again is tried until it can."""
    async with kept_running(home / "state", HastyClock()) as (server, entries):
        conf = server.path / "data" / "postgresql.conf"
        good = conf.read_text()
        conf.write_text("no_such_parameter = 1\n")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        async with asyncio.timeout(30):
            while len(entries.all) < 4:  # noqa: ASYNC110 - the entries come from no loop
                await asyncio.sleep(0.005)
        assert "no_such_parameter" in str(entries.all[-1].fields["reason"])
        conf.write_text(good)
        await started(server, 2)
        assert await ask(server, "select 1") == 1


async def started(server: EmbeddedServer, times: int) -> None:
    """Wait until the server has been started so often."""
    async with asyncio.timeout(30):
        while server.starts < times:  # noqa: ASYNC110 - a server has no event for its tests
            await asyncio.sleep(0.005)


async def test_cancelled_start_leaves_nothing_running(home: Path) -> None:
    """A start that is cancelled at any moment leaves no process, and a later one succeeds."""
    for delay_s in (0.0, 0.01, 0.05, 0.2, 0.4):
        server = EmbeddedServer(EmbeddedStore(), home / "state", clock=SystemClock())
        starting = asyncio.ensure_future(server.start())
        await asyncio.wait([starting], timeout=delay_s)
        starting.cancel()
        await asyncio.wait([starting])
        await server.stop()
        assert not processes_of(server.path / "data")
        assert not processes_of(server.path / "data.new")
    async with running(home / "state") as server:
        assert await ask(server, "select 1") == 1


async def test_another_major_version_is_refused(home: Path) -> None:
    """Data of another version are left alone, and the message says what to do."""
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(
        EmbeddedDatabaseMisconfigured, match="made by PostgreSQL 16 and this is 18: nothing was changed"
    ):
        await EmbeddedServer(EmbeddedStore(), home, clock=SystemClock()).start()
    assert names_in(home / "postgres") == ["data"]
    assert names_in(data) == ["PG_VERSION"]


def _without_access_time(path: Path) -> list[int | float]:
    """What `stat` says, without the time of the last reading."""
    return [value for index, value in enumerate(path.stat()[:10]) if index != stat.ST_ATIME]


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("thesis.txt", r"is not empty \(thesis.txt\) and holds no embedded store"),
        ("PG_VERSION", "is itself a PostgreSQL data directory"),
        ("data/thesis.txt", "is not empty and no PostgreSQL data directory"),
    ],
)
async def test_foreign_folder_is_refused(home: Path, file: str, complaint: str) -> None:
    """A folder that holds something else is left alone."""
    (home / "store" / file).parent.mkdir(parents=True)
    (home / "store" / file).touch()
    spec = EmbeddedStore(path=home / "store")
    before = _without_access_time(home / "store")
    with pytest.raises(EmbeddedDatabaseMisconfigured, match=complaint):
        await EmbeddedServer(spec, home, clock=SystemClock()).start()
    assert (home / "store" / file).exists()
    assert _without_access_time(home / "store") == before


async def test_state_directory_that_is_a_file(home: Path) -> None:
    """A path that leads through a file is said plainly."""
    (home / "file").touch()
    with pytest.raises(EmbeddedDatabaseMisconfigured, match="Not a directory"):
        await EmbeddedServer(EmbeddedStore(), home / "file", clock=SystemClock()).start()


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    """Have a tmpfs there for the length of the block."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", where], check=True)
    try:
        yield
    finally:
        kill_all_below(where)
        subprocess.run(["umount", where], check=True)


@as_root
async def test_read_only_disk(home: Path) -> None:
    """A state directory that cannot be written is said plainly."""
    with mounted(home / "disk", "ro"), pytest.raises(EmbeddedDatabaseMisconfigured, match="Read-only file system"):
        await EmbeddedServer(EmbeddedStore(), home / "disk", clock=SystemClock()).start()


@as_root
async def test_full_disk(home: Path) -> None:
    """A disk too small for a new store is said plainly; nothing half-made is left, and with room it starts."""
    with mounted(home / "disk", "size=12M", "mode=755"):
        server = EmbeddedServer(EmbeddedStore(), home / "disk", clock=SystemClock())
        with pytest.raises(EmbeddedDatabaseFailed, match="No space left on device"):
            await server.start()
        assert [path.name for path in (home / "disk" / "postgres").iterdir()] == []
        run_tool("mount", "-o", "remount,size=200M", home / "disk")
        async with running(home / "disk") as server:
            assert await ask(server, "select 1") == 1


@as_root
async def test_disk_that_is_full_later(home: Path) -> None:
    """A store whose disk has filled up fails in the server's own words, and starts with its data once there is room."""
    with mounted(home / "disk", "size=60M", "mode=755"):
        async with running(home / "disk") as server:
            await ask(server, "create table kept as select 1")
        with contextlib.suppress(OSError), (home / "disk" / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        with pytest.raises(EmbeddedDatabaseFailed, match="No space left on device"):
            await server.start()
        (home / "disk" / "filler").unlink()
        async with running(home / "disk") as server:
            assert await ask(server, "select count(*) from kept") == 1


async def test_failed_start_shows_the_servers_words(home: Path) -> None:
    """When the server does not come up its FATAL lines are in the error, those of this start alone."""
    async with running(home / "state") as server:
        pass
    with (server.path / "data" / "postgresql.conf").open("a") as conf:
        conf.write("no_such_parameter = 1\n")
    with (server.path / "server.log").open("a") as log:
        log.write("FATAL: an old complaint\n")
    with pytest.raises(EmbeddedDatabaseFailed, match="no_such_parameter") as caught:
        await server.start()
    assert "old complaint" not in str(caught.value)


async def test_log_stays_bounded(home: Path) -> None:
    """The server's log is cut at a start once it is long."""
    async with running(home / "state") as server:
        with (server.path / "server.log").open("ab") as log:
            log.truncate(server_log.LIMIT_BYTES + 1)
    async with running(home / "state") as server:
        assert (server.path / "server.log").stat().st_size < 10_000


async def test_worker_errors_stay_out_of_the_log_as_statements(home: Path) -> None:
    """A failing statement, which may carry secrets, is not written to the server's log."""
    async with running(home / "state") as server:
        with pytest.raises(asyncpg.UndefinedTableError):
            await ask(server, "select 'hunter2' from nowhere")
        assert "hunter2" not in (server.path / "server.log").read_text()


async def test_ephemeral_store_is_gone_at_the_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ephemeral store works, and nothing of it is left after the stop; the next start begins anew."""
    monkeypatch.setenv("TMPDIR", str(home))
    server = EmbeddedServer(EmbeddedStore(ephemeral=True), home / "state", clock=SystemClock())
    for _ in range(2):
        await server.start()
        await ask(server, "create table gone ()")
        assert server.path.is_relative_to(home)
        await server.stop()
        assert names_in(home) == []


async def test_ephemeral_store_without_a_temporary_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the temporary directory cannot be used the state directory serves."""
    (home / "file").touch()
    monkeypatch.setenv("TMPDIR", str(home / "file"))
    async with running(home / "state", EmbeddedStore(ephemeral=True)) as server:
        assert server.path.is_relative_to(home / "state")
    assert list((home / "state").iterdir()) == []


async def test_ephemeral_leftovers_are_cleared(
    home: Path, run_daemon: Callable[..., StoreDaemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a killed daemon is removed at the next start, that of a living one is not."""
    monkeypatch.setenv("TMPDIR", str(home))
    dead = run_daemon(mode="ephemeral")
    dead.kill()
    wait_for_end(dead.server_pid)
    assert dead.path.exists()
    living = run_daemon(mode="ephemeral")
    assert not dead.path.parent.exists()
    async with running(home / "other", EmbeddedStore(ephemeral=True)) as server:
        assert server.path != living.path
        assert living.path.exists()
    assert living.end() == 0
    assert not living.path.parent.exists()


def test_ephemeral_folder_is_safe_before_its_server_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a living daemon is not cleared away in the moments before its server stands in it."""
    monkeypatch.setenv("TMPDIR", str(home))
    first, second = EphemeralFolder(home), EphemeralFolder(home)
    path = first.make()
    second.make()
    assert path.parent.exists()
    first.remove()
    second.remove()
    assert names_in(home) == []


def test_missing_extra() -> None:
    """Without the extra the message says how to install it."""
    hidden = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p];"
    script = f"{hidden} from supervisor.database.embedded.process import find_programs; find_programs()"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, check=False
    )
    assert b"EmbeddedDatabaseMisconfigured: the embedded store needs PostgreSQL 18" in done.stderr
    assert b'pip install "pgsupervisor[embedded]"' in done.stderr


async def test_idle_server_is_no_burden(home: Path) -> None:
    """The server's processes without clients are few: no worker that only bigger systems need."""
    async with running(home / "state") as server:
        assert await ask(server, "select count(*) from pg_stat_activity where backend_type !~ 'client|autovacuum'") == 3
        assert len(processes_of(server.path / "data")) <= 7
