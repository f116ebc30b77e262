"""The control socket: each line is a JSON request, and is answered by a line of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from supervisor.daemon.component import Component
from supervisor.errors import ConfigError, ConfigFault, ControlSocketInUse, SupervisorError
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_MAX_LINE_BYTES = 64 * 1024
_REQUEST_TIMEOUT_S = 5.0
_REPLY_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 0.5
_TRANSIENT_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE, errno.ENOMEM}


class ControlServer(Component):
    """Listens at a socket that only the daemon's own user and root can open.

    A lock beside the socket distinguishes a socket that a crash left behind from the socket of a running
    daemon. A request to the socket could not: a daemon may be too busy to answer.
    """

    name = "control socket"

    def __init__(self, path: Path, handler: Handler, *, stopping: dict[str, Any]) -> None:
        """Make a server that does not listen yet.

        Args:
            path: Where it listens.
            handler: Answers a request.
            stopping: The answer to the requests that the stop overtakes.
        """
        self._path = path
        self._handler = handler
        self._stopping = stopping
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._lock: int | None = None
        self._inode = 0
        self._is_started = False
        self._is_broken = False

    async def start(self) -> None:
        """Start to listen.

        Raises:
            ControlSocketInUse: Another daemon uses this path, or the machine lacks something for the moment.
            ConfigError: The path cannot be used.
        """
        await self._listen()
        self._is_started = True

    async def stop(self, deadline_s: float) -> None:  # noqa: ARG002 - its own limit is shorter
        """Stop listening, remove the socket and free the path for a successor; what is open hears of the stop."""
        self._is_started = False
        self._close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving, timeout=_STOP_TIMEOUT_S)

    async def _listen(self) -> None:
        try:
            listener = self._open_listener()
        except OSError as error:
            raise _startup_error(self._path, error) from error
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_MAX_LINE_BYTES)
        self._inode = self._path.stat().st_ino

    async def recreate_if_removed(self) -> None:
        """Create the socket again when something has removed it: without it no command reaches the daemon."""
        if self._is_started and not (self._inode and self._inode == self._inode_now()):
            await self._recreate()

    async def _recreate(self) -> None:
        if not self._is_broken:
            log_event("control.failed", path=str(self._path), reason="the socket was removed; it is created again")
        self._close()
        try:
            await self._listen()
        except (SupervisorError, OSError) as error:
            if not self._is_broken:
                log_event("control.failed", path=str(self._path), reason=str(error))
            self._is_broken, self._inode = True, 0
        else:
            self._is_broken = False
        if not self._is_started:
            self._close()  # stopped meanwhile

    def _inode_now(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return 0

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(OSError):
                if self._inode_now() == self._inode:
                    self._path.unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open_listener(self) -> socket.socket:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 20).decode("ascii", errors="replace").strip()
            raise ControlSocketInUse(
                f"Another pgsupervisor{f' (pid {holder})' if holder else ''} runs with the control socket "
                f"{self._path}. Stop it, or give this one a supervisor.control of its own."
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        self._path.unlink(missing_ok=True)  # the process that held the lock before has ended
        return _bind(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as a task
        self._serving.add(task)
        try:
            await self._handle_request(reader, writer)
        except asyncio.CancelledError:
            # The stop cancels it. The task ends here, and normally: asyncio logs a cancelled one as an error.
            await self._answer_stopping(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the client left, or sent something that is no request
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not end the daemon
            log_event("control.failed", path=str(self._path), reason=f"{type(error).__name__}: {error}", exc=error)
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _answer_stopping(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await _reply(reader, writer, self._stopping, timeout_s=_STOP_TIMEOUT_S)

    async def _handle_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            line = await reader.readline()
        if not line:
            return
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        is_request = isinstance(request, dict)
        reply = await self._handler(request) if is_request else {"ok": False, "error": "a request is a JSON object"}
        await _reply(reader, writer, reply, timeout_s=_REPLY_TIMEOUT_S)


async def _reply(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: dict[str, Any], *, timeout_s: float
) -> None:
    async with asyncio.timeout(timeout_s):
        writer.write(json.dumps(reply, default=str).encode() + b"\n")
        await writer.drain()
        writer.write_eof()
        await reader.read()  # the client closes first, so that nothing is cut off


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    old = os.umask(0o177)
    try:
        # A socket's path holds 107 bytes; through /proc any folder is short enough.
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(old)
        os.close(folder)
    return listener


def _startup_error(path: Path, error: OSError) -> SupervisorError:
    problem = f"the control socket {path} cannot be created: {error.strerror or error}"
    if error.errno in _TRANSIENT_ERRNOS:
        return ControlSocketInUse(f"{problem[0].upper()}{problem[1:]}. The daemon cannot start until that is repaired.")
    return ConfigError(
        ConfigFault(
            "supervisor.control",
            "",
            f"{problem}. Choose a folder this user can write to, or set supervisor.control.",
        )
    )
