"""The configuration file's bytes, as tables."""

from __future__ import annotations

import stat
import tomllib
from typing import TYPE_CHECKING, Any

from supervisor.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from pathlib import Path

# A hundred thousand workers fit; a device or a data file given by mistake does not fill the memory.
_LARGEST_BYTES = 64 * 1024 * 1024


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ConfigError: It cannot be read or is no TOML; the fault says where and why.
    """
    try:
        return tomllib.loads(read_text(path, _LARGEST_BYTES))
    except OSError as error:
        raise ConfigError(ConfigFault(str(path), "", cannot_be_read(error))) from None
    except UnicodeDecodeError as error:
        raise ConfigError(ConfigFault(str(path), "", f"is not UTF-8 text (byte {error.start + 1})")) from None
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        raise ConfigError(ConfigFault(str(path), "", f"is not valid TOML: {reason[:1].lower()}{reason[1:]}")) from None
    except (ValueError, RecursionError):
        raise ConfigError(ConfigFault(str(path), "", "is not valid TOML: a number or a nesting is too large")) from None


def read_text(path: Path, most_bytes: int) -> str:
    """Return a regular file's text.

    Raises:
        OSError: It cannot be read, is no regular file or is larger than `most_bytes`.
        UnicodeDecodeError: It is not UTF-8.
    """
    # Looked at before it is opened: opening a pipe nobody writes to would wait for ever.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise OSError("is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("is not a regular file")
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(f"is larger than {most_bytes} bytes")
    return content.decode("utf-8-sig")


def cannot_be_read(error: OSError) -> str:
    """Return the sentence about a file that cannot be read, and who would have to be able to."""
    if error.errno is None:
        return str(error)
    if isinstance(error, PermissionError):
        return f"cannot be read: permission denied; {_user()} needs to read it"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read: {error.strerror}"


def _user() -> str:
    # Only for the fault: no start pays for it.
    import os  # noqa: PLC0415
    import pwd  # noqa: PLC0415

    try:
        return f'the user "{pwd.getpwuid(os.geteuid()).pw_name}"'
    except KeyError:
        return f"the user with the id {os.geteuid()}"
