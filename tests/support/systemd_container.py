"""A real systemd, journald and dbus in private namespaces, booted in half a second over a view of this machine.

Every file of the machine is there and can be written, but the writes are lost; /tmp, /run, /var/log and
/dev/shm begin empty. The network is the machine's own, so a PostgreSQL on 127.0.0.1 is reachable.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEADLINE_S = 30.0
_INIT = Path(__file__).with_name("systemd_container_init.sh")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
_PREFIX = "pgsupervisor-container-"
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts")
_numbers = itertools.count(1)

# PR_SET_PDEATHSIG follows the thread that forked, so one thread that lives as long as the process starts every
# container.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="container-spawner")


def why_no_container(root: Path = Path("/")) -> str | None:
    """Return the reason why no container can be booted here, or None."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    missing = [tool for tool in ("unshare", "nsenter", "setpriv") if shutil.which(tool) is None]
    missing += [file for file in ("lib/systemd/systemd", "usr/bin/dbus-daemon") if not (root / file).exists()]
    if missing:
        return f"booting a systemd needs {', '.join(missing)} (in {root})"
    probe = (
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/up /mnt/work /mnt/root /mnt/cgroup && "
        f"mount -t overlay overlay -o 'lowerdir={root},upperdir=/mnt/up,workdir=/mnt/work' /mnt/root && "
        "mount -t cgroup2 cgroup2 /mnt/cgroup"
    )
    command = ["unshare", *_NAMESPACES, "--cgroup", "--fork", "sh", "-c", probe]
    tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    return f"this machine allows no container: {tried.stderr.strip()}" if tried.returncode else None


class SystemdContainer:
    """One booted systemd; a context manager that leaves nothing behind, however the test ends.

    Attributes:
        init: The process id, on this machine, of the container's systemd.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        binds: Mapping[str, Path] | None = None,
        writable: Mapping[str, Path] | None = None,
    ) -> None:
        """Prepare a container; it boots in `with`.

        Args:
            root: The root file system to show, that of another release perhaps.
            binds: What else is seen, by its absolute path in the container, read-only.
            writable: The same, but writes there are real.
        """
        self.root = root.resolve()
        self.init = 0
        self._binds = [("ro", what.resolve(), where) for where, what in (binds or {}).items()]
        self._binds += [("rw", what.resolve(), where) for where, what in (writable or {}).items()]
        self._scratch = Path(tempfile.gettempdir(), f"{_PREFIX}{os.getpid()}-{next(_numbers)}")
        self._boot_log = (
            self._scratch / "boot.log"
        )  # the machine's view of the folder; the container mounts its own over it
        self._unshare: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        _sweep()
        self._scratch.mkdir(mode=0o700)
        try:
            self._unshare = _SPAWNER.submit(self._spawn).result()
            self._wait_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._unshare is not None:
            # The kernel ends every process of the container with its first one, and only then lets `unshare` see its
            # end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init or self._unshare.pid, signal.SIGKILL)
            self._unshare.wait(DEADLINE_S)
        _remove(self._scratch)

    def run(
        self, *command: str | Path, check: bool = True, text: str | None = None, limit_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container as root.

        Args:
            command: The program and its arguments.
            check: Whether a failure fails the test, with what the command said.
            text: Its standard input.
            limit_s: How long it may take.
        """
        done = subprocess.run(
            [*self._enter(), *map(str, command)],
            input=text or "",
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
            check=False,
            timeout=limit_s,
        )
        assert not check or done.returncode == 0, f"{command} exited with {done.returncode}: {done.stderr}{done.stdout}"
        return done

    def path(self, path: str | Path) -> Path:
        """Return where a file of the container is seen from this machine; symbolic links to absolute paths mislead."""
        return Path(f"/proc/{self.init}/root") / str(path).lstrip("/")

    def write(self, path: str | Path, text: str, *, mode: int = 0o644) -> None:
        """Write a file in the container, with the folders above it."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def install(self, name: str, text: str) -> None:
        """Install a unit or a drop-in (`x.service.d/y.conf`) and let systemd know."""
        self.write(f"/etc/systemd/system/{name}", text)
        self.run("systemctl", "daemon-reload")

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit, as `systemctl show` gives it."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the entries that fit, oldest first.

        Args:
            matches: As journalctl takes them: `EVENT=daemon.ready`, `-u`, `pgsupervisor`, …
        """
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "-o", "json", "-q", "--no-pager", *matches, check=False).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def wait_for(self, *matches: str, count: int = 1, limit_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until `count` entries of the journal fit, and return the last of those.

        Args:
            matches: As journalctl takes them.
            count: How many there have to be since the container was booted.
            limit_s: After this long the test fails and shows the journal.
        """
        for number, entry in enumerate(self._follow(matches, limit_s), 1):
            if number == count:
                return entry
        raise AssertionError(f"no {count} entries {matches} within {limit_s} s; the journal:\n{self.tail()}")

    def tail(self, lines: int = 200) -> str:
        """Return the end of the whole journal, for people."""
        return self.run("journalctl", "-n", str(lines), "--no-pager", "-o", "short-precise", check=False).stdout

    def _follow(self, matches: tuple[str, ...], limit_s: float) -> Iterator[dict[str, Any]]:
        deadline_s = time.monotonic() + limit_s
        # `nsenter` forks into the pid namespace and killing it would leave an orphan, so the end comes through stdin.
        script = 'journalctl "$@" & read -r _; kill $!'
        command = [*self._enter(), "sh", "-c", script, "sh", "-f", "--no-tail", "-o", "json", *matches]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        with (
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, env=_ENVIRONMENT) as following,
            selectors.DefaultSelector() as selector,
        ):
            assert following.stdout is not None
            selector.register(following.stdout, selectors.EVENT_READ)
            rest = b""
            while selector.select(max(0.0, deadline_s - time.monotonic())):
                chunk = os.read(following.stdout.fileno(), 65536)
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self.init), "-m", "-p", "-C", "-i", "-u", "--root", "--wd", "--"]

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": _ENVIRONMENT["PATH"],
            "CONTAINER_ROOT": str(self.root),
            "CONTAINER_SCRATCH": str(self._scratch),
            "CONTAINER_CGROUP": self._scratch.name,
            "CONTAINER_BINDS": "\n".join(f"{mode}\t{what}\t{where}" for mode, what, where in self._binds),
        }
        unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child=KILL", "bash", str(_INIT)]
        with self._boot_log.open("wb") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _wait_booted(self) -> None:
        assert self._unshare is not None
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        deadline_s = time.monotonic() + DEADLINE_S
        while not self._is_booted():
            assert self._unshare.poll() is None, f"the container did not boot: {self._boot_log.read_text()}"
            assert time.monotonic() < deadline_s, f"the container takes too long to boot: {self._boot_log.read_text()}"
            time.sleep(0.01)
            with contextlib.suppress(OSError, IndexError):
                self.init = int(children.read_text().split()[0])

    def _is_booted(self) -> bool:
        # Before systemd stands there, the namespaces are half made and nsenter would see the machine itself.
        with contextlib.suppress(OSError):
            if self.init and Path(f"/proc/{self.init}/comm").read_text() == "systemd\n":
                return self.run("systemctl", "is-active", "-q", "container.target", check=False).returncode == 0
        return False


def _sweep() -> None:
    """Remove what the containers of killed processes left: an empty folder and an empty cgroup each."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            _remove(folder)


def _remove(scratch: Path) -> None:
    # The cgroup bears the folder's name.
    remove = 'mount -t cgroup2 c "$0" && find "$0/$1" -depth -type d -exec rmdir {} +'
    command = ["unshare", "--mount", "sh", "-c", remove, str(scratch), scratch.name]
    subprocess.run(command, capture_output=True, check=False, timeout=DEADLINE_S)
    shutil.rmtree(scratch, ignore_errors=True)
