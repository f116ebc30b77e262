"""Imports the users' functions, in a thread and with a deadline: an import may do anything, and hang."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.config.kinds import kind_of
from supervisor.durations import format_duration
from supervisor.errors import ConfigError, ConfigFault
from supervisor.journal import configure_structlog
from supervisor.journal.exceptions import one_line
from supervisor.suggestions import nearest
from supervisor.threads import start_thread, thread_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import ModuleType

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec

TIMEOUT_S = 30.0
_INSTALLED = ("site-packages", "dist-packages")
_MAX_LAYERS = 20


class InvalidHandler(Exception):
    """The function cannot be used; the message is a sentence for its author."""


async def import_handlers(
    specs: Iterable[WorkerSpec],
    *,
    python_path: Iterable[Path],
    source: str,
    clock: Clock,
    timeout_s: float = TIMEOUT_S,
) -> Mapping[str, Any]:
    """Import the function of each worker, and return them by the worker's name.

    Modules that Python has imported before are not executed again.

    Args:
        specs: The workers.
        python_path: Folders to import from, after the standard library and before installed packages.
        source: The configuration's file, for the faults.
        clock: Time.
        timeout_s: How long all imports together may take.

    Raises:
        ConfigError: With a fault for each folder that does not exist and each worker that cannot be loaded. A thread
            whose import hangs is left behind; it does not keep the process from ending.
    """
    folders = [*python_path]
    _extend_path(folders)
    imports = _Imports([*specs], folders)
    done = start_thread(imports.run, name="import workers")
    if await done_within(done, timeout_s, clock=clock):
        done.result()
        problems = imports.problems
    else:
        done.cancel()  # the thread is left behind
        problems = {**imports.problems, **imports.unfinished(timeout_s)}
    faults = [
        ConfigFault(source, "supervisor.python_path", f"the folder {folder} does not exist")
        for folder in imports.missing
    ]
    faults += [ConfigFault(source, f"workers.{name}.run", problem) for name, problem in problems.items()]
    if faults:
        raise ConfigError(*faults)
    if "structlog" in sys.modules:
        configure_structlog()  # log entries that workers make with it go to the journal too
    return imports.handlers


def _extend_path(folders: Iterable[Path]) -> None:
    """Add folders to `sys.path`, once and in their order: after the standard library, before installed packages.

    After, because the daemon itself continues to import: a worker's own `queue.py` or `select.py` would shadow the
    standard library for the whole process. Before, because an installed package must not shadow a user's own module.
    """
    ours = [*dict.fromkeys(map(str, folders))]
    installed = (n for n, entry in enumerate(sys.path) if entry.endswith(_INSTALLED) and entry not in ours)
    place = next(installed, len(sys.path))
    sys.path[place:place] = [folder for folder in ours if folder not in sys.path]


class _Imports:
    """The imports of one configuration; `run` belongs to the thread, the rest to the loop."""

    def __init__(self, specs: list[WorkerSpec], folders: list[Path]) -> None:
        self.handlers: dict[str, Any] = {}
        self.problems: dict[str, str] = {}
        self.missing: list[Path] = []
        self._specs = specs
        self._folders = folders
        self._thread_id = 0
        self._current: WorkerSpec | None = None

    def run(self) -> None:
        """Import everything, one module after the other."""
        self._thread_id = threading.get_ident()
        self.missing = [folder for folder in self._folders if not os.path.exists(folder)]  # noqa: PTH110 - never raises
        # Files may have appeared since a folder was last read.
        importlib.invalidate_caches()
        found: dict[tuple[str, str], Any] = {}
        for spec in self._specs:
            self._current = spec
            key = (spec.run, kind_of(spec).name)
            try:
                if key not in found:
                    found[key] = import_handler(spec)
                self.handlers[spec.name] = found[key]
            except InvalidHandler as problem:
                self.problems[spec.name] = str(problem)
        self._current = None

    def unfinished(self, timeout_s: float) -> dict[str, str]:
        """Return the problem of each worker whose import had not ended at the deadline."""
        current = self._current
        if current is None:
            return {}
        left = [spec for spec in self._specs if spec.name not in self.handlers and spec.name not in self.problems]
        hung = f"importing {current.run.partition(':')[0]!r} has not ended after {format_duration(timeout_s)}"
        return {
            spec.name: hung + self._place()
            if spec.run == current.run
            else f"was not imported, because worker {current.name!r} came first and {hung}"
            for spec in left
        }

    def _place(self) -> str:
        """Return where the import hangs, in the module's own code."""
        frame = thread_frame(self._thread_id)
        while frame is not None:
            path = frame.f_code.co_filename
            if "importlib" not in path and path != threading.__file__ and frame.f_code.co_name == "<module>":
                return f"; it is at {path}:{frame.f_lineno}"
            frame = frame.f_back
        return ""


def import_handler(spec: WorkerSpec) -> Any:
    """Import and check the function that a worker's `run` names.

    Raises:
        InvalidHandler: It cannot be imported, or is no function for a worker of this kind.
    """
    run = spec.run
    module_name, colon, path = run.partition(":")
    if not (colon and path and module_name) or not all(module_name.split(".")):
        raise InvalidHandler(f'expected "package.module:function", found {run!r}')
    module = _import(module_name)
    try:
        function = _attribute(module, path)
        _check(function, spec)
    except InvalidHandler:
        raise
    except BaseException as error:
        # A module's __getattr__, a descriptor, a signature: a user's code may do anything.
        raise InvalidHandler(f"looking at {run!r} raised {one_line(error)}") from error
    return function


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        place = _place(error)
        if place is None:
            raise InvalidHandler(
                f"there is no module {error.name!r}: install it, or name its folder in supervisor.python_path"
            ) from error
        raise InvalidHandler(f"importing {name!r} failed at {place}: {one_line(error)}") from error
    except (SystemExit, KeyboardInterrupt) as error:
        raise InvalidHandler(
            f"importing {name!r} raised {one_line(error)}{_at(error)}: a module must not end the process"
        ) from error
    except BaseException as error:
        raise InvalidHandler(f"importing {name!r} failed{_at(error)}: {one_line(error)}") from error


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = nearest(part, (name for name in dir(found) if not name.startswith("_")), normalise=False)
            hint = f"; did you mean {near!r}?" if near else ""
            where = getattr(module, "__file__", None) or module.__name__
            raise InvalidHandler(f"{where} has no {path!r}{hint}") from None
    return found


def _check(function: Any, spec: WorkerSpec) -> None:
    """Raise `InvalidHandler` if `function` is no coroutine function with the parameters of the worker's kind."""
    run, kind = spec.run, kind_of(spec)
    parameters = ", ".join(kind.handler_parameters)
    shape = f"`async def work({parameters}): ...`"
    if inspect.isclass(function):
        raise InvalidHandler(f"{run!r} is a class; a worker is a function: {shape}")
    if not callable(function):
        raise InvalidHandler(f"{run!r} is of type {type(function).__name__!r}, not a function")
    layers = _layers(function)
    if not any(map(inspect.iscoroutinefunction, layers)):
        raise InvalidHandler(f"{run!r} is {_description(layers)}; a worker is {shape}")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some callables have none
    try:
        signature.bind(*kind.handler_parameters)
    except TypeError:
        raise InvalidHandler(
            f'{run!r} takes {signature}; a worker of kind "{kind.name}" takes ({parameters}): {shape}'
        ) from None


def _layers(function: Any) -> list[Any]:
    """Return a callable and what it wraps: partials, decorated functions, objects with `__call__`."""
    layers: list[Any] = []
    while function is not None and len(layers) < _MAX_LAYERS:
        layers.append(function)
        if isinstance(function, functools.partial):
            function = function.func
        elif (inner := getattr(function, "__wrapped__", None)) is not None:
            function = inner
        elif inspect.isroutine(function):
            break
        else:
            function = getattr(type(function), "__call__", None)  # noqa: B004 - the method is needed, not a yes or no
    return layers


def _description(layers: list[Any]) -> str:
    if any(map(inspect.isasyncgenfunction, layers)):
        return "an async generator (it has a `yield`)"
    if any(map(inspect.isgeneratorfunction, layers)):
        return "a generator (it has a `yield`)"
    return "a plain function, which would block all other workers"


def _at(error: BaseException) -> str:
    place = _place(error)
    return f" at {place}" if place else ""


def _place(error: BaseException) -> str | None:
    """Return the innermost place outside the import machinery; None: no other code has run."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place, trace = None, error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if not path.startswith("<frozen importlib") and path not in (__file__, importlib.__file__):
            place = f"{path}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
