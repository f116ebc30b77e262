"""The daemon's Python inside a container, at a place that a hardened unit can reach.

A unit with `DynamicUser=` and `ProtectHome=` reaches neither a Python under /root nor a checkout under
/tmp. So the container has a virtual environment of its release's own Python at /opt/pgsupervisor, which finds the
checkout's present code at /opt/pgsupervisor-src. It is built once, inside a container, and kept in .cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

from support.systemd_container import SystemdContainer

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = "/opt/pgsupervisor"
SOURCE = "/opt/pgsupervisor-src"
_COMMAND = f"""#!{HOME}/bin/python3
import sys
from supervisor.__main__ import main
sys.exit(main())
"""
# What pip may need from this machine to reach its registry, in a root that has none of it.
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf")
_NETWORK_VARIABLES = ("PIP_", "SSL_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_INSTALL_LIMIT_S = 600.0


def daemon_binds(root: Path = Path("/")) -> dict[str, Path]:
    """Return what a container of `root` has to see for /opt/pgsupervisor/bin/pgsupervisor to work in it."""
    return {HOME: _environment(root.resolve()), f"{SOURCE}/supervisor": CHECKOUT / "supervisor"}


def why_no_python(root: Path = Path("/")) -> str | None:
    """Return the reason why the release's own Python cannot run the daemon, or None."""
    version = _python_version(root)
    if version is None:
        return f"the container needs /usr/bin/python3 in {root}"
    if version < (3, 11):
        return f"the container needs Python 3.11, /usr/bin/python3 in {root} is older"
    return None


def _python_version(root: Path) -> tuple[int, ...] | None:
    command = ["chroot", str(root), "/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def _environment(root: Path) -> Path:
    """Return the virtual environment for `root`, built when the dependencies have changed."""
    requirements = _requirements()
    version = ".".join(map(str, _python_version(root) or ()))
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    cache = CHECKOUT / ".cache" / "container-python"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"{version}-{digest}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs in one checkout build it once
        if not home.exists():
            partial = home.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _build(root, partial, requirements)
            partial.rename(home)
    return home


def _requirements() -> list[str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["embedded"]]


def _build(root: Path, home: Path, requirements: list[str]) -> None:
    binds = {file: Path(file) for file in _NETWORK_FILES if Path(file).exists()}
    variables = [f"{name}={value}" for name, value in os.environ.items() if name.upper().startswith(_NETWORK_VARIABLES)]
    with SystemdContainer(root, binds=binds, writable={HOME: home}) as container:
        container.run("/usr/bin/python3", "-m", "venv", HOME, limit_s=_INSTALL_LIMIT_S)
        pip = (f"{HOME}/bin/python3", "-m", "pip", "install", "--no-cache-dir", "--quiet")
        container.run("env", *variables, *pip, *requirements, limit_s=_INSTALL_LIMIT_S)
        (packages,) = home.glob("lib/python3*/site-packages")
        (packages / "pgsupervisor.pth").write_text(f"{SOURCE}\n")
        container.write(f"{HOME}/bin/pgsupervisor", _COMMAND, mode=0o755)
        container.run("chmod", "-R", "a+rX", HOME)
