"""Reading a table by the list of its keys, collecting every fault on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.config.value import WrongValue, key_path, quoted
from supervisor.errors import ConfigFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from supervisor.config.value import Reader


class Key(NamedTuple):
    """A key of the configuration.

    Attributes:
        field: The field of the model that takes the value.
        read: Checks and converts the value.
        inner: The keys below it, when the value is a table with keys of ours.
    """

    field: str
    read: Reader
    inner: Mapping[str, Key] | None = None


class Faults:
    """What is wrong so far, and which variable of the environment said which value.

    Attributes:
        found: The faults, in the order of the file.
        variables: The variable that gave the value at a key path.
    """

    def __init__(self, file: str) -> None:
        self.found: list[ConfigFault] = []
        self.variables: dict[tuple[str, ...], str] = {}
        self._file = file
        self._places: set[tuple[str, ...]] = set()

    def add(self, where: tuple[str, ...], problem: str) -> None:
        """Add what is wrong at a key path; the source is whoever said the value."""
        source = self.variable_of(where) or self._file
        self.found.append(ConfigFault(source, key_path(*where), problem))
        self._places.add(where)

    def add_from(self, source: str, problem: str) -> None:
        """Add what is wrong with a source that is no key."""
        self.found.append(ConfigFault(source, "", problem))

    def concern(self, *where: str) -> bool:
        """Whether something is wrong at exactly this key path, so that its value is not the one to judge by."""
        return where in self._places

    def source_of(self, where: tuple[str, ...]) -> str:
        """Return who said the value at a key path, for people: a variable, or the file and the key."""
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
    faults: Faults,
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
        except WrongValue as problem:
            faults.add((*where, name), str(problem))
            continue
        given[key.field] = read if key.inner is None else read_table(read, key.inner, (*where, name), faults)
    return given


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Return the sentence about a key that does not exist."""
    names = list(known)
    if near := nearest(name, names):
        return f"there is no such key; did you mean {quoted(near)}?"
    return f"there is no such key here; the keys are {', '.join(names)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, if one is."""
    # Only when something is wrong: a correct configuration does not pay for it.
    from difflib import get_close_matches  # noqa: PLC0415

    # Nobody's typo is longer, and the comparison grows with the square of the length.
    near = get_close_matches(name[:100].lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return near[0] if near else None
