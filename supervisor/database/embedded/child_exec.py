"""Becomes one of PostgreSQL's programs, without anything of the daemon. A script for a fresh interpreter.

`child_exec.py PARENT DEATH_SIGNAL RUN_AS FOLDER KEPT PROGRAM [ARGUMENT …]`, with RUN_AS one of `self`, `user:UID:GID`
and `map:ID`, and KEPT the descriptor that the program inherits, 0 for none but the standard ones.

It is a script and no `preexec_fn`, because Python code between fork and exec can deadlock in a process with threads,
and uvloop knows neither `user` nor `umask`. It costs some 15 ms a start.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # typing costs 5 ms of a start
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
NO_ACCESS = 126


def main(arguments: list[str]) -> None:
    """Drop what the daemon had, become the user, and execute the program."""
    parent, death_signal, run_as, folder, kept, program, *rest = arguments
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # Handlers end with the exec, but what is ignored (SIGPIPE by Python, SIGHUP by nohup) would stay ignored.
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    close_all_but(int(kept))
    os.setsid()
    libc = _load_libc()  # while Python's own files, which may be root's alone, are within reach
    drop_privileges(run_as, libc)
    for path in (program, folder):
        if not os.access(path, os.X_OK):
            sys.stderr.write(f"{path} is out of reach of user {os.geteuid()}\n")
            sys.exit(NO_ACCESS)
    os.chdir("/")
    if libc is not None:
        set_parent_death_signal(int(parent), int(death_signal), libc)
    os.execv(program, [program, *rest])  # noqa: S606 - that is the purpose


def close_all_but(kept: int) -> None:
    """Close every descriptor but the standard ones and `kept`."""
    os.closerange(3, max(3, kept))
    os.closerange(max(3, kept + 1), 65536)


def drop_privileges(run_as: str, libc: Any) -> None:
    """Become the user that `run_as` names."""
    match run_as.split(":"):
        case ["user", uid, gid]:
            os.setgroups(())
            os.setresgid(int(gid), int(gid), int(gid))
            os.setresuid(int(uid), int(uid), int(uid))
        case ["map", inner]:
            _enter_user_namespace(inner, libc)
        case _:
            pass


def set_parent_death_signal(parent: int, death_signal: int, libc: Any) -> None:
    """Have the kernel send `death_signal` when the thread that started this process ends; after any change of user."""
    libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the daemon has ended")


def _enter_user_namespace(inner: str, libc: Any) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if libc is None or libc.unshare(_CLONE_NEWUSER) != 0:
        sys.stderr.write("the kernel refuses a user namespace\n")
        sys.exit(NO_ACCESS)
    for name, line in (
        ("setgroups", "deny"),
        ("gid_map", f"{inner} {outer_gid} 1"),
        ("uid_map", f"{inner} {outer_uid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib costs 10 ms of a start
            file.write(line)


def _load_libc() -> Any:
    """Return the C library, None where memory cannot be made executable; the next start then ends an orphan."""
    try:
        import ctypes  # noqa: PLC0415 - it may fail

        return ctypes.CDLL(None)
    except (ImportError, MemoryError, OSError):
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
