"""Read a TOML file, and a table by the list of its keys; collect every fault on the way."""

from __future__ import annotations

import os
import pwd
import stat
import tomllib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from supervisor.config.validators import InvalidValue, key_path, quoted
from supervisor.errors import ConfigError, ConfigFault
from supervisor.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from supervisor.config.validators import Validator


# What a reload does with a key whose value has changed.
OnReload = Literal[
    "live",  # applied at once; nothing is interrupted
    "reconnect",  # applied, with new connections to the database
    "replace",  # applied; the worker is stopped and started anew
    "start",  # read at a start only, so it takes effect at the next one
    "restart",  # the reload is refused, because only a restart can apply it
    "parent",  # as the table that holds the key
]


class Key(NamedTuple):
    """A key of the configuration.

    Attributes:
        field: The field of the model that takes the value.
        read: Checks and converts the value.
        on_reload: What a reload does when the value has changed.
        doc: What it means, in one sentence.
        inner: The keys below it, when the value is a table with keys of ours.
        default: For people, where the model has no constant for it.
        later: Keys below it that a later version has.
    """

    field: str
    read: Validator
    on_reload: OnReload
    doc: str
    inner: Mapping[str, Key] | None = None
    default: str = ""
    later: tuple[str, ...] = ()


_LATER_KEY = "this version does not have this key yet; leave it out"


class FaultCollector:
    """What is wrong so far, and which variable of the environment said which value.

    Attributes:
        faults: The faults, in the order of the file.
        variables: The variable that gave the value at a key path.
    """

    def __init__(self, file: str) -> None:
        self.faults: list[ConfigFault] = []
        self.variables: dict[tuple[str, ...], str] = {}
        self._file = file
        self._places: set[tuple[str, ...]] = set()

    def add(self, where: tuple[str, ...], problem: str) -> None:
        """Add what is wrong at a key path; the source is the file, or the variable that gave the value."""
        source = self.variable_of(where) or self._file
        self.faults.append(ConfigFault(source, key_path(*where), problem))
        self._places.add(where)

    def add_source_fault(self, source: str, problem: str) -> None:
        """Add what is wrong with a source that is no key."""
        self.faults.append(ConfigFault(source, "", problem))

    def has_fault_at(self, *where: str) -> bool:
        """Whether something is wrong at exactly this key path, so that its value means nothing."""
        return where in self._places

    def source_of(self, where: tuple[str, ...]) -> str:
        """Return where the value at a key path is, for people: in a variable, or in the file under its key."""
        return self.variable_of(where) or f"{self._file}: {key_path(*where)}"

    def variable_of(self, where: tuple[str, ...]) -> str | None:
        """Return the variable that gave the value at a key path, or a table around it."""
        for length in range(len(where), 0, -1):
            if (variable := self.variables.get(where[:length])) is not None:
                return variable
        return None


def read_table(
    values: Mapping[str, object],
    keys: Mapping[str, Key],
    where: tuple[str, ...],
    faults: FaultCollector,
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the fields that a table gives.

    Args:
        values: The table.
        keys: The keys it may have.
        where: The key path of the table.
        faults: Takes what is wrong.
        refused: Keys that exist but not here, and why; an empty sentence: said elsewhere.
    """
    given: dict[str, Any] = {}
    for name, value in values.items():
        key = keys.get(name)
        if key is None:
            problem = unknown_key(name, keys) if refused is None or name not in refused else refused[name]
            if problem:
                faults.add((*where, name), problem)
            continue
        try:
            read = key.read(value)
        except InvalidValue as problem:
            faults.add((*where, name), str(problem))
            continue
        if key.inner is not None:
            later = dict.fromkeys(key.later, _LATER_KEY)
            read = read_table(read, key.inner, (*where, name), faults, later)
        given[key.field] = read
    return given


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Return the sentence about a key that does not exist."""
    names = list(known)
    if near := nearest(name, names):
        return f"there is no such key; did you mean {quoted(near)}?"
    return f"there is no such key here; the keys are {', '.join(names)}"


# A hundred thousand workers fit; a device or a data file given by mistake does not fill the memory.
_MAX_BYTES = 64 * 1024 * 1024


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ConfigError: It cannot be read or is no TOML; the fault says where and why.
    """
    try:
        return tomllib.loads(read_text(path, _MAX_BYTES))
    except OSError as error:
        raise ConfigError(ConfigFault(str(path), "", read_error_text(error))) from None
    except UnicodeDecodeError as error:
        raise ConfigError(ConfigFault(str(path), "", f"is not UTF-8 text (byte {error.start + 1})")) from None
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        raise ConfigError(ConfigFault(str(path), "", f"is not valid TOML: {reason[:1].lower()}{reason[1:]}")) from None
    except (ValueError, RecursionError):
        raise ConfigError(ConfigFault(str(path), "", "is not valid TOML: a number or a nesting is too large")) from None


def toml_value(text: str) -> object:
    """Return the value of a variable: TOML where it parses as such, else the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # More than the one key: the text has a line break and goes on with keys of its own.
    return parsed["value"] if len(parsed) == 1 else text


def read_text(path: Path, limit_bytes: int) -> str:
    """Return a regular file's text.

    Raises:
        OSError: It cannot be read, is no regular file or is larger than `limit_bytes`.
        UnicodeDecodeError: It is not UTF-8.
    """
    # Checked before it is opened: opening a pipe without a writer would wait for ever.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise OSError("is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("is not a regular file")
    with path.open("rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(f"is larger than {limit_bytes} bytes")
    return content.decode("utf-8-sig")


def read_error_text(error: OSError) -> str:
    """Return the sentence about a file that cannot be read; it names the user that has to be able to."""
    if error.errno is None:
        return str(error)
    if isinstance(error, PermissionError):
        return f"cannot be read: permission denied; {_user()} needs to read it"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read: {error.strerror}"


def _user() -> str:
    try:
        return f'the user "{pwd.getpwuid(os.geteuid()).pw_name}"'
    except KeyError:
        return f"the user with the id {os.geteuid()}"
