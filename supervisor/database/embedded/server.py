"""The embedded store: a PostgreSQL of the daemon's own, as its child process.

It listens on a unix socket alone, inside a folder that only its user enters. The caller holds the lock of
`lock_folder()` before it starts one. Death of the daemon, however sudden, shuts the server down by the kernel's
hand (SIGINT as parent-death signal); whatever escapes that is ended by the next start, or waited for where it is out
of reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote

from supervisor.clock import done_within
from supervisor.config.model import Dsn
from supervisor.database.embedded import data_directory, server_log
from supervisor.database.embedded.data_directory import EphemeralFolder
from supervisor.database.embedded.locks import acquire_server_lock
from supervisor.database.embedded.orphans import end_orphans, processes_of, remove_pid_files
from supervisor.database.embedded.process import choose_identity, find_programs, spawn
from supervisor.database.embedded.store_error import store_error
from supervisor.errors import EmbeddedDatabaseFailed

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path

    from supervisor.clock import Clock
    from supervisor.config.model import EmbeddedStore
    from supervisor.database.embedded.process import Identity


_PORT = 5432  # of the socket's name alone
_LONGEST_SOCKET_PATH = 107
_POLL_S = 0.005
_IMMEDIATE_S = 3.0


def lock_folder(spec: EmbeddedStore, state_dir: Path) -> Path:
    """Return the folder whose lock guards the store: its own if it has a path, which two daemons may share."""
    return spec.path if spec.path is not None else state_dir


class EmbeddedServer:
    """A PostgreSQL that runs as a child of the daemon.

    Attributes:
        path: The store's folder; an ephemeral one is known from the first start on.
        starts: How often it has been started.
        ended: Done when the server that was started last has ended, with its exit status, negative for a signal.
        is_stopping: Whether its end is wanted.
    """

    def __init__(
        self, spec: EmbeddedStore, state_dir: Path, *, clock: Clock, max_connections: int = 50, limit_s: float = 30.0
    ) -> None:
        """Describe the server; nothing happens before `start()`.

        Args:
            spec: Where its data are.
            state_dir: The daemon's state directory.
            clock: For waiting.
            max_connections: What the daemon's pool and sessions need, and a few more.
            limit_s: How long an orphan of a killed daemon may take to end; as long again where it is out of reach.
        """
        self.path = spec.path or state_dir / "postgres"
        self.starts = 0
        self._ephemeral = EphemeralFolder(state_dir) if spec.ephemeral else None
        self._max_connections, self._limit_s, self._clock = max_connections, limit_s, clock
        self._process: Process | None = None
        self.ended: asyncio.Future[int] | None = None
        self._folder_fd: int | None = None
        self.is_stopping = False

    @property
    def dsn(self) -> Dsn:
        """How to connect, the same over restarts of the server. It holds no secret."""
        folder = str(self.path)
        if self._folder_fd is not None and not _fits(folder):
            # The kernel takes 107 bytes and asyncpg splits at commas; this leads there, for other processes too.
            folder = f"/proc/{os.getpid()}/fd/{self._folder_fd}"
        text = f"postgresql://postgres@/postgres?port={_PORT}&host={quote(folder, safe='/')}"
        return Dsn(text, redacted=text)

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the server, after building its data directory if there is none; return when it accepts connections.

        There is no limit, since recovery after a crash takes as long as it takes. Cancelled, it ends the server.

        Raises:
            EmbeddedDatabaseMisconfigured: A person must change something first.
            EmbeddedDatabaseFailed: It did not work this time; the server's own words are in the message.
        """
        programs = find_programs()
        is_new = self._folder_fd is None  # a restart keeps the folder, and with it the address
        if self._ephemeral is not None and is_new:
            self.path = self._ephemeral.make()
        self.is_stopping = False
        try:
            await self._run(programs, await self._prepare(programs))
        except BaseException:
            await self._kill()
            if is_new:
                self._release_folder()
            raise
        self.starts += 1

    async def stop(self, limit_s: float = 10.0) -> None:
        """Shut the server down and return when it has ended: kindly for `limit_s`, then hard, a few seconds at most."""
        self.is_stopping = True
        for number, patience_s in ((signal.SIGINT, limit_s), (signal.SIGQUIT, _IMMEDIATE_S)):
            if self.ended is None or self.ended.done():
                break
            self._signal(number)
            await done_within(self.ended, patience_s, clock=self._clock)
        await self._kill()
        self._release_folder()

    def _release_folder(self) -> None:
        if self._folder_fd is not None:
            os.close(self._folder_fd)
            self._folder_fd = None
        if self._ephemeral is not None:
            self._ephemeral.remove()

    async def _prepare(self, programs: Path) -> Identity:
        """Make everything ready for the server: its user, its folder, its data, and nobody else in there."""
        path = self.path
        owner = data_directory.data_owner(path)
        try:
            data_directory.make_parents(path)
        except OSError as error:
            raise store_error(f"the embedded database cannot make {path.parent}", error) from error
        identity = await choose_identity(programs, path.parent, owner)
        data_directory.prepare(path, identity)
        if owner is None:
            await data_directory.initdb(path, programs, identity, durable=self._ephemeral is None)
        elif (path / "data" / "postmaster.pid").exists():
            await end_orphans(path / "data", clock=self._clock, limit_s=self._limit_s)
        if self._folder_fd is None:
            self._folder_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return identity

    async def _run(self, programs: Path, identity: Identity) -> None:
        lock = await acquire_server_lock(self.path, clock=self._clock, timeout_s=self._limit_s)
        try:
            remove_pid_files(self.path / "data")
            self._process, said_before = await self._spawn(programs, identity, lock)
        finally:
            os.close(lock)  # the server alone holds it from now on
        self.ended = asyncio.ensure_future(self._process.wait())  # noqa: TID251 - ends with the process, which stop() ends
        while not self._is_ready():
            if self.ended.done():
                raise EmbeddedDatabaseFailed(
                    f"the embedded server did not start: {server_log.last_lines(self.path, said_before)}"
                )
            await self._clock.sleep(_POLL_S)

    async def _spawn(self, programs: Path, identity: Identity, lock: int) -> tuple[Process, int]:
        """Start the postmaster, and return how long its log was before."""
        arguments = ("-D", str(self.path / "data"), *_options(self._max_connections, durable=self._ephemeral is None))
        with server_log.open_log(self.path) as log:
            said_before = os.fstat(log.fileno()).st_size
            process = await spawn(
                identity,
                programs / "postgres",
                *arguments,
                output=log,
                death_signal=signal.SIGINT,
                inherited=lock,
            )
        return process, said_before

    def _is_ready(self) -> bool:
        # The eighth line says "ready" once connections are accepted; pg_ctl looks for the same.
        try:
            lines = (self.path / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _kill(self) -> None:
        """End at once whatever is left, children that have lost their postmaster too."""
        if self.ended is not None and not self.ended.done():
            self._signal(signal.SIGKILL)
            await asyncio.shield(self.ended)
        if self._process is not None and self._process.returncode != 0:
            for pid in processes_of(self.path / "data"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _fits(folder: str) -> bool:
    return len(os.fsencode(f"{folder}/.s.PGSQL.{_PORT}")) <= _LONGEST_SOCKET_PATH and "," not in folder


def _options(max_connections: int, *, durable: bool) -> list[str]:
    """Return what must hold whatever the configuration file says."""
    settings = {
        "listen_addresses": "",
        "port": str(_PORT),
        # Relative to the data directory, the server's working directory: no path is too long for it.
        "unix_socket_directories": "..",
        "unix_socket_permissions": "0700",
        "max_connections": str(max_connections),
        "logging_collector": "off",
        "log_destination": "stderr",
    }
    if not durable:
        settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
