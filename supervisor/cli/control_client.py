"""Requests to the running daemon through its control socket: reload, pause, resume, restart."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from supervisor.cli.output import print_error, print_out
from supervisor.config.paths import config_path, control_candidates
from supervisor.errors import SupervisorError
from supervisor.exit_status import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

# An import may take a minute, a changed worker its whole stop_timeout.
_LONG_S = 600.0
_NOT_APPLIED = {
    ("rejected", False): "Refused, the old configuration runs on",
    ("rejected", True): "Would be refused",
    ("incomplete", False): "Applied in part, the daemon is degraded until a reload applies",
}
_DONE = {"pause": "paused", "resume": "resumed", "restart": "restarted"}


class NoDaemon(SupervisorError):
    """No daemon answers."""

    exit_status = ExitStatus.UNAVAILABLE


def send_request(control: str | None, config: str | None, request: dict[str, Any], *, limit_s: float) -> dict[str, Any]:
    """Return the daemon's answer.

    Args:
        control: What `--control` says.
        config: What `-c` says.
        request: The command and its arguments.
        limit_s: How long the answer may take.

    Raises:
        NoDaemon: No daemon answers; the message names the sockets that were tried.
    """
    candidates = control_candidates(control, config_path(config, os.environ), os.environ)
    problems: list[str] = []
    for path in candidates:
        try:
            return _send_to(path, request, limit_s)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            problems.append(f"  {path}: no daemon listens there")
        except PermissionError:
            problems.append(f"  {path}: not allowed; run this as root or as the daemon's own user")
        except TimeoutError:
            raise NoDaemon(f"The daemon at {path} did not answer within {limit_s:g}s; read its journal.") from None
        except (OSError, ValueError) as error:
            problems.append(f"  {path}: {error}")
    looked = "\n".join(problems)
    raise NoDaemon(f"No running daemon was found. Is it started? Name its socket with --control. Tried:\n{looked}")


def _send_to(path: Path, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(limit_s)
            # A socket's path holds 107 bytes; through /proc any folder is short enough.
            peer.connect(f"/proc/self/fd/{folder}/{path.name}")
            peer.sendall(json.dumps(request).encode() + b"\n")
            with peer.makefile("rb") as reply:
                line = reply.readline()
    finally:
        os.close(folder)
    if not line:
        raise ConnectionError("the daemon closed the connection without an answer; it is probably stopping")
    answer: dict[str, Any] = json.loads(line)
    return answer


def reload(control: str | None, config: str | None, *, dry_run: bool) -> int:
    """Ask for a reload, wait for its outcome and return 0 when it was applied, else 1."""
    answer = send_request(control, config, {"command": "dry-run" if dry_run else "reload"}, limit_s=_LONG_S)
    if answer["ok"]:
        print_out("\n".join(answer.get("lines", ())))
        return ExitStatus.OK
    if "outcome" in answer:
        print_error(f"{_NOT_APPLIED[answer['outcome'], dry_run]}:\n{answer['error']}")
    else:
        print_error(answer["error"])  # there was no reload
    return ExitStatus.REFUSED


def worker_command(control: str | None, config: str | None, command: str, worker: str) -> int:
    """Send a command for one worker and return 0 when it was carried out, 1 when it was refused."""
    answer = send_request(control, config, {"command": command, "worker": worker}, limit_s=_LONG_S)
    if answer["ok"]:
        print_out(f"{worker}: {_DONE[command]}")
        return ExitStatus.OK
    print_error(answer["error"])
    return ExitStatus.REFUSED
