"""The daemon as a user installs it: a virtual environment with the runtime dependencies and nothing else.

The development environment would flatter us: `rich` lies in it, structlog imports whatever of it is
there, and so the bare script that we are compared with would start more slowly.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROOT

_VENV = ROOT / ".cache" / "bench-venv"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the measured programs are.

    Attributes:
        python: The environment's interpreter.
        command: `pgsupervisor`, as pip writes it.
        modules: The folder of the workers' module, compiled.
    """

    python: Path
    command: Path
    modules: Path


def install() -> Installation:
    """Return the environment, made when it is missing or outdated, with the tree's daemon as it is now.

    The daemon is copied into it, so that nobody's edit changes it during a run, and compiled.
    """
    python = _VENV / "bin" / "python"
    stamp = _VENV / "made-from"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(_VENV, ignore_errors=True)
        # Without pip: its setuptools brings a .pth that every start would pay for.
        _run(sys.executable, "-m", "venv", "--without-pip", _VENV)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
        with tempfile.TemporaryDirectory() as scratch:
            # pip builds in the tree it is given, and would leave a folder `build` in ours.
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, scratch)
            shutil.copytree(ROOT / "supervisor", Path(scratch, "supervisor"))
            subprocess.run((*pip, "install", "-qq", scratch), check=True)
        stamp.write_text(wanted)
    _refresh(python)
    return Installation(python, _VENV / "bin" / "pgsupervisor", _workers(python))


def _refresh(python: Path) -> None:
    found = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    package = Path(found.strip()) / "supervisor"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "supervisor", package, ignore=shutil.ignore_patterns("__pycache__"))
    _run(python, "-m", "compileall", "-q", package)


def _workers(python: Path) -> Path:
    folder = _VENV / "workers"
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).parent / "bench_workers.py", folder)
    _run(python, "-m", "compileall", "-q", folder)
    return folder


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def environment(**more: str) -> dict[str, str]:
    """Return what a measured process finds around it: little, and the same for all."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **more}
