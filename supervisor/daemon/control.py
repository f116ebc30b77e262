"""The control socket: one JSON request a line, one JSON answer a line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from supervisor.errors import ConfigError, ConfigFault, ControlSocketInUse, SupervisorError
from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_LINE_LIMIT = 64 * 1024
_REQUEST_LIMIT_S = 5.0
_REPLY_LIMIT_S = 5.0
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE, errno.ENOMEM}


class ControlServer:
    """Listens at a socket that only the daemon's own user and root can open.

    A lock beside the socket tells a socket that a crash left behind from one that a living daemon
    answers; asking the socket itself could not, for a daemon may be too busy to answer.
    """

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._lock: int | None = None
        self._inode = 0
        self._is_broken = False

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            ControlSocketInUse: Another daemon uses this path, or the machine lacks something for the moment.
            ConfigError: The path cannot be used.
        """
        try:
            listener = self._listen()
        except OSError as error:
            raise self._explain(error) from error
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_LINE_LIMIT)
        self._inode = self._path.stat().st_ino

    async def mend(self) -> None:
        """Make the socket anew when something has removed it: without it no command reaches the daemon."""
        if self._inode and self._inode == self._inode_now():
            return
        if not self._is_broken:
            log_event("control.failed", path=str(self._path), reason="the socket was removed; it is made again")
        self.close()
        try:
            await self.open()
        except (SupervisorError, OSError) as error:
            if not self._is_broken:
                log_event("control.failed", path=str(self._path), reason=str(error))
            self._is_broken, self._inode = True, 0
        else:
            self._is_broken = False

    def _inode_now(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return 0

    def close(self) -> None:
        """Stop listening, remove the socket and free the path for a successor."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(OSError):
                if self._inode_now() == self._inode:
                    self._path.unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _listen(self) -> socket.socket:
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
        self._path.unlink(missing_ok=True)  # whoever held the lock before is gone
        return _bind(self._path)

    def _explain(self, error: OSError) -> SupervisorError:
        problem = f"the control socket {self._path} cannot be made: {error.strerror or error}"
        if error.errno in _PASSING:
            return ControlSocketInUse(
                f"{problem[0].upper()}{problem[1:]}. The daemon cannot start until that is mended."
            )
        return ConfigError(
            ConfigFault(
                "supervisor.control",
                "",
                f"{problem}. Choose a folder this user can write to, or set supervisor.control.",
            )
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the client left or spoke nonsense; that is its own affair
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not end the daemon
            log_event("control.failed", path=str(self._path), reason=f"{type(error).__name__}: {error}", exc=error)
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_REQUEST_LIMIT_S):
            line = await reader.readline()
        if not line:
            return
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        is_request = isinstance(request, dict)
        reply = await self._answer(request) if is_request else {"ok": False, "error": "a request is a JSON object"}
        writer.write(json.dumps(reply, default=str).encode() + b"\n")
        async with asyncio.timeout(_REPLY_LIMIT_S):
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
