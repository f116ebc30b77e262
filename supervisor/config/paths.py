"""Which file is the configuration, where the daemon keeps its state, and where its control socket is.

The commands that talk to a running daemon need the last even while the file is broken, gone or
unreadable, so they get a list of places to try instead of an error.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.config.table_reader import read_error_text, toml_value
from supervisor.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET = "control.sock"
DEFAULT_NAME = "pgsupervisor"
CONFIG_VARIABLE = "PGSUPERVISOR_CONFIG"
_HERE = "pgsupervisor.toml"
_SYSTEM = "/etc/pgsupervisor/pgsupervisor.toml"
_CONTROL = "PGSUPERVISOR__SUPERVISOR__CONTROL"
_STATE_DIR = "PGSUPERVISOR__SUPERVISOR__STATE_DIR"
_HEADER = re.compile(r"\s*\[")
_SUPERVISOR = re.compile(r"\s*\[\s*supervisor\s*\]")
_LINE = re.compile(r"\s*(?P<dotted>supervisor\s*\.\s*)?(?P<key>control|state_dir)\s*=(?P<value>.*)", re.DOTALL)


def find_config(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the absolute path of the configuration file.

    Args:
        explicit: `-c`, as the user wrote it.
        environ: The environment.

    Raises:
        ConfigError: There is none; the fault says where it was looked for.
    """
    path = config_path(explicit, environ)
    if path is None:
        looked = f"{from_here(_HERE)} and {_SYSTEM}"
        problem = (
            f"there is no configuration: looked for {looked}; write one, or name it with -c FILE or ${CONFIG_VARIABLE}"
        )
        raise ConfigError(ConfigFault(_HERE, "", problem))
    try:
        path.stat()
    except OSError as error:
        asked = "-c" if explicit is not None else f"${CONFIG_VARIABLE}" if environ.get(CONFIG_VARIABLE) else None
        why = f" (named by {asked})" if asked else ""
        raise ConfigError(ConfigFault(str(path), "", f"{read_error_text(error)}{why}")) from None
    return path


def config_path(explicit: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return the path that is meant, whether or not it can be read; None: nothing names one and none is there."""
    named = explicit if explicit is not None else environ.get(CONFIG_VARIABLE)
    if named:
        return from_here(named)
    for candidate in (from_here(_HERE), Path(_SYSTEM)):
        try:
            candidate.stat()
        except PermissionError:
            # It may be there: better to say that it cannot be read than to go on to another one.
            return candidate
        except OSError:
            continue
        return candidate
    return None


def absolute(path_text: str, base: Path) -> Path:
    """Return the absolute path for a text that is relative to the folder `base`."""
    path = base / path_text
    # Symbolic links stay as they are (under systemd the state directory is one), unless `..` makes them matter.
    return path.resolve() if ".." in path.parts else path


def from_here(path: str | Path) -> Path:
    """Return a path that is relative to the working directory as an absolute one."""
    try:
        return Path(path) if Path(path).is_absolute() else Path.cwd() / path
    except FileNotFoundError:
        # The working directory was deleted; there is nothing a relative path could be found in.
        return Path("/nowhere", path)


def default_state_dir(config_path: Path, environ: Mapping[str, str]) -> Path:
    """Return where the state is kept by default: systemd's directory, else beside the file."""
    return first_directory(environ, "STATE_DIRECTORY") or config_path.parent / ".pgsupervisor"


def default_control(state_dir: Path, environ: Mapping[str, str]) -> Path:
    """Return where the control socket is by default."""
    return (first_directory(environ, "RUNTIME_DIRECTORY") or state_dir) / SOCKET


def first_directory(environ: Mapping[str, str], variable: str) -> Path | None:
    """Return the first directory of one of systemd's variables; it may list several."""
    first = environ.get(variable, "").split(":")[0]
    return Path(first) if first.startswith("/") else None


def control_candidates(explicit: str | None, config_path: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Return where the running daemon's control socket may be, the likeliest first.

    Args:
        explicit: `--control`; then there is no other place.
        config_path: The configuration file, existing or not; None: nothing says which.
        environ: The environment.
    """
    if explicit is not None:
        return [from_here(explicit)]
    path = from_here(config_path or f"{DEFAULT_NAME}.toml")
    written = _read_leniently(path)
    control = _overridden(environ, _CONTROL) or written.get("control")
    if control:
        return [absolute(control, path.parent)]
    state_text = _overridden(environ, _STATE_DIR) or written.get("state_dir")
    state_dir = absolute(state_text, path.parent) if state_text else default_state_dir(path, environ)
    runtime = first_directory(environ, "RUNTIME_DIRECTORY")
    places = [runtime] if runtime else []
    places += [Path("/run", DEFAULT_NAME, path.stem), state_dir]
    return [place / SOCKET for place in dict.fromkeys(places)]


def _overridden(environ: Mapping[str, str], variable: str) -> str | None:
    value = toml_value(environ.get(variable, ""))
    return value if isinstance(value, str) else None


def _read_leniently(path: Path) -> dict[str, str]:
    """Return `control` and `state_dir` as far as they can be read from the file, whatever else is wrong in it."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError:
        return {}
    try:
        section = tomllib.loads(text).get("supervisor", {})
    except (ValueError, RecursionError):
        section = _scan_lines(text)
    if not isinstance(section, dict):
        return {}
    return {key: value for key, value in section.items() if key in ("control", "state_dir") and isinstance(value, str)}


def _scan_lines(text: str) -> dict[str, object]:
    """Find the two keys in a file that is no TOML any more, line by line."""
    section: dict[str, object] = {}
    inside = top = None
    for line in text.splitlines():
        if _HEADER.match(line):
            inside, top = _SUPERVISOR.match(line), False
            continue
        match = _LINE.match(line)
        if match is None or not (inside if match["dotted"] is None else top is None):
            continue
        try:
            section[match["key"]] = tomllib.loads(f"value ={match['value']}")["value"]
        except ValueError:
            continue
    return section
