"""What a hardened unit has to reach, and what keeps it from there."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# ProtectHome= shows empty copies of these, in which systemd can show single folders of the real ones.
_HOMES = (Path("/root"), Path("/home"), Path("/run/user"))
# The same with PrivateTmp=.
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - compared with, never written to


def this_command() -> tuple[str, ...]:
    """Return the command that starts this program from any folder."""
    called = Path(sys.argv[0]).resolve()
    if called.name == "pgsupervisor" and called.is_file():
        return (str(called),)
    installed = Path(sys.prefix, "bin", "pgsupervisor")
    return (str(installed),) if installed.is_file() else (sys.executable, "-m", "supervisor")


def this_python() -> tuple[Path, ...]:
    """Return the folders of this Python and of everything that it can import."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2], *map(Path, filter(None, sys.path))]
    return outermost(folder.resolve() for folder in folders if folder.is_dir())


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the paths without those inside another of them, sorted."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return tuple(kept)


def under_homes(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return those that `ProtectHome=` hides."""
    return tuple(path for path in paths if _is_inside(path, _HOMES))


def hidden(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return those that a hardened unit sees only where they are bound one by one."""
    return tuple(path for path in paths if _is_inside(path, _HOMES + _TEMPORARY))


def path_to_bind(config: Path) -> Path:
    """Return what to bind for a configuration: its folder, so that a reload finds the file that an editor put there.

    A user's whole home is not bound for one file.
    """
    folder = config.parent
    is_home = folder in (*_TEMPORARY, Path("/root"), Path("/home")) or folder.parent in _HOMES[1:]
    return config if is_home else folder


def access_problems(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return a sentence for each thing in the file system that keeps a user without privileges from `paths`."""
    found: dict[str, None] = {}  # a set that keeps its order: many paths share a parent
    for path in paths:
        if _is_inside(path, (*_TEMPORARY, Path("/run/user"))):
            found[f"{path} is in a folder for temporary files, which are deleted: install under /opt instead"] = None
        found |= dict.fromkeys(_unreadable(path))
    return tuple(found)


def _unreadable(path: Path) -> Iterable[str]:
    # A hidden path is mounted by root under folders of systemd's own making, so only its own mode counts.
    parents = () if _is_inside(path, _HOMES + _TEMPORARY) else path.parents
    for folder in (path, *parents):
        try:
            mode = folder.stat().st_mode
        except OSError as error:
            yield f"{folder} cannot be read: {error.strerror}"
            continue
        wanted = stat.S_IXOTH if folder != path else stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & wanted != wanted:
            advice = "chmod o+rX" if folder == path else "install under /opt, or chmod o+x"
            yield f"{folder} is not readable for the unit's user (mode {stat.S_IMODE(mode):04o}): {advice}"


def _is_inside(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
