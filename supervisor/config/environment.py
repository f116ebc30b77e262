"""The environment laid over the file: `PGSUPERVISOR__SECTION__KEY=value`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.schema import TOP, WORKER, WORKER_NAME
from supervisor.config.table_reader import toml_value
from supervisor.escaping import printable_line
from supervisor.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.table_reader import FaultCollector, Key

PREFIX = "PGSUPERVISOR__"
_WORKERS = "WORKERS"

Path = tuple[str, ...]


def override(tables: dict[str, Any], environ: Mapping[str, str], faults: FaultCollector) -> None:
    """Lay the variables of the environment over the tables of the file.

    Args:
        tables: The file's tables, changed in place.
        environ: The environment.
        faults: Takes the variables that fit nothing, and learns which value came from where.
    """
    variables = [name for name in environ if name.startswith(PREFIX)]
    if not variables:
        return
    workers = _names_in_environment(tables)
    names = {("workers", name) for same in workers.values() for name in same}
    found = []
    for variable in variables:
        resolved = _resolve(variable.removeprefix(PREFIX), tables, workers)
        if isinstance(resolved, str):
            faults.add_source_fault(printable_line(variable), resolved)
        else:
            found.append((resolved, variable))
    # A whole table first, then the keys in it.
    for path, variable in sorted(found, key=lambda entry: (len(entry[0]), entry)):
        if path[0] == "workers" and path[:2] not in names:
            faults.variables[path[:2]] = variable  # this worker is the environment's own
        if _set_at(tables, path, toml_value(environ[variable])):
            faults.variables[path] = variable


def _set_at(tables: dict[str, Any], path: Path, value: object) -> bool:
    table = tables
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            return False  # the file has something else there, which is a fault of its own
    table[path[-1]] = value
    return True


def _names_in_environment(tables: dict[str, Any]) -> dict[str, list[str]]:
    """Return the workers of the file by the name that they have in a variable."""
    names: dict[str, list[str]] = {}
    workers = tables.get("workers")
    for name in workers if isinstance(workers, dict) else ():
        names.setdefault(_in_environment(name), []).append(name)
    return names


def _in_environment(name: str) -> str:
    return name.upper().replace("-", "_")


def _resolve(rest: str, tables: dict[str, Any], workers: dict[str, list[str]]) -> Path | str:
    """Return the key path that a variable means, or the sentence about one that means nothing."""
    if rest.startswith(f"{_WORKERS}__"):
        return _resolve_worker(rest.removeprefix(f"{_WORKERS}__"), tables, workers)
    if rest == _WORKERS:
        return f"names no worker; write {PREFIX}{_WORKERS}__NAME__RUN, with the worker's name in upper case"
    path = _descend(rest.split("__"), TOP)
    return path if path is not None else _unknown_variable(rest, [*_all_names(TOP), f"{_WORKERS}__NAME__RUN"])


def _descend(parts: list[str], keys: Mapping[str, Key]) -> Path | None:
    name = parts[0].lower()
    if name not in keys or parts[0] != name.upper():
        return None
    if len(parts) == 1:
        return (name,)
    inner = keys[name].inner
    below = _descend(parts[1:], inner) if inner is not None else None
    return None if below is None else (name, *below)


def _resolve_worker(rest: str, tables: dict[str, Any], workers: dict[str, list[str]]) -> Path | str:
    known = [(name, key) for start, key in _splits(rest) for name in workers.get(start, ())]
    fitting = [(name, path) for name, key in known if (path := _descend_worker(key, tables, name)) is not None]
    if len(fitting) > 1:
        names = " and ".join(f'"{name}"' for name, _ in fitting)
        return f"may mean any of the workers {names}; write it into the file"
    if fitting:
        name, path = fitting[0]
        return ("workers", name, *path)
    if known:
        name = known[0][0]
        return _unknown_variable(
            f"{_WORKERS}__{rest}", [f"{_WORKERS}__{_in_environment(name)}__{key}" for key in _all_names(WORKER)]
        )
    return _resolve_new_worker(rest, tables, workers)


def _resolve_new_worker(rest: str, tables: dict[str, Any], workers: dict[str, list[str]]) -> Path | str:
    """Return the key path in a worker that only the environment knows."""
    start, _, key = rest.partition("__")
    name = start.lower()
    if not WORKER_NAME.fullmatch(name) or start != name.upper():
        return "names no worker: the names are upper case here, with _ for -"
    path = _descend_worker(key, tables, name)
    if path is not None:
        return ("workers", name, *path)
    near = nearest(start, workers)
    names = [f"{_WORKERS}__{start}__{key}" for key in _all_names(WORKER)]
    if near is not None:
        names += [f"{_WORKERS}__{near}__{key}" for key in _all_names(WORKER)]
    return _unknown_variable(f"{_WORKERS}__{rest}", names)


def _descend_worker(key: str, tables: dict[str, Any], name: str) -> Path | None:
    if not key:
        return ()
    first, _, rest = key.partition("__")
    if first == "SETTINGS" and rest:
        return _descend_settings(rest, tables, name)
    return _descend(key.split("__"), WORKER)


def _descend_settings(rest: str, tables: dict[str, Any], name: str) -> Path:
    """Return the path of a worker's own setting; settings are named like those of the file, else in lower case."""
    table: Any = tables.get("workers", {}).get(name, {})
    table = table.get("settings") if isinstance(table, dict) else None
    path = ["settings"]
    for part in rest.split("__"):
        known = [key for key in table if _in_environment(key) == part] if isinstance(table, dict) else []
        path.append(known[0] if known else part.lower())
        table = table.get(path[-1]) if isinstance(table, dict) else None
    return tuple(path)


def _splits(rest: str) -> Iterator[tuple[str, str]]:
    """Yield every way to cut a text at two underscores; a worker's name may have some itself."""
    yield rest, ""
    for index in range(len(rest) - 2):
        if rest.startswith("__", index):
            yield rest[:index], rest[index + 2 :]


def _all_names(keys: Mapping[str, Key]) -> Iterator[str]:
    for name, key in keys.items():
        if key.inner is None:
            yield name.upper()
        else:
            yield from (f"{name.upper()}__{inner}" for inner in _all_names(key.inner))


def _unknown_variable(rest: str, names: list[str]) -> str:
    upper = {name.lower(): name for name in names}
    near = nearest(rest, upper)
    return f"fits no key; did you mean {PREFIX}{upper[near]}?" if near else "fits no key of the configuration"
