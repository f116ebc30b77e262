"""Finds the function that `package.module:function` names, and says plainly why it cannot be used."""

from __future__ import annotations

import functools
import importlib
import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from supervisor.supervision.instance_log import sentence_of

if TYPE_CHECKING:
    from types import ModuleType


_ONE = "a worker takes one argument, its context"


class NotUsable(Exception):
    """The function cannot be used; the message is a sentence for who wrote it."""


def find(run: str, *, takes_events: bool = False) -> Any:
    """Import and check the function that `run` names.

    Args:
        run: `package.module:function`.
        takes_events: Whether it is a projection's, which is given a batch of events too.

    Raises:
        NotUsable: It cannot be imported, or is nothing that a worker can be.
    """
    module_name, colon, path = run.partition(":")
    if not (colon and path and module_name) or not all(module_name.split(".")):
        raise NotUsable(f'expected "package.module:function", found {run!r}')
    module = _import(module_name)
    try:
        function = _attribute(module, path)
        check(function, run, takes_events=takes_events)
    except NotUsable:
        raise
    except BaseException as error:
        # A module's __getattr__, a descriptor, a signature: a user's code may do anything.
        raise NotUsable(f"looking at {run!r} raised {sentence_of(error)}") from error
    return function


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        place = _place(error)
        if place is None:
            raise NotUsable(
                f"there is no module {error.name!r}: install it, or name its folder in supervisor.python_path"
            ) from error
        raise NotUsable(f"importing {name!r} failed at {place}: {sentence_of(error)}") from error
    except (SystemExit, KeyboardInterrupt) as error:
        raise NotUsable(
            f"importing {name!r} raised {sentence_of(error)}{_at(error)}: a module must not end the process"
        ) from error
    except BaseException as error:
        raise NotUsable(f"importing {name!r} failed{_at(error)}: {sentence_of(error)}") from error


def _attribute(module: ModuleType, path: str) -> Any:
    thing: Any = module
    for part in path.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            names = [name for name in dir(thing) if not name.startswith("_")]
            near = get_close_matches(part, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            where = getattr(module, "__file__", None) or module.__name__
            raise NotUsable(f"{where} has no {path!r}{hint}") from None
    return thing


def check(function: Any, run: str, *, takes_events: bool = False) -> None:
    """Raise `NotUsable` if `function` is no coroutine function of the context, and a projection's of its events."""
    shape = "`async def work(ctx, events): ...`" if takes_events else "`async def work(ctx): ...`"
    if inspect.isclass(function):
        raise NotUsable(f"{run!r} is a class; a worker is a function: {shape}")
    if not callable(function):
        raise NotUsable(f"{run!r} is of type {type(function).__name__!r}, not a function")
    layers = _layers(function)
    if not any(map(inspect.iscoroutinefunction, layers)):
        raise NotUsable(f"{run!r} is {_kind(layers)}; a worker is {shape}")
    _check_parameters(function, run, takes_events=takes_events)


def _check_parameters(function: Any, run: str, *, takes_events: bool) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        # Not every callable can tell.
        return
    try:
        signature.bind(*[object()] * (2 if takes_events else 1))
    except TypeError:
        wanted = "a projection takes two arguments, its context and the events of a batch" if takes_events else _ONE
        raise NotUsable(f"{run!r} takes {signature}; {wanted}") from None


def _layers(function: Any) -> list[Any]:
    """Return a callable and what it wraps: partials, decorated functions, objects with `__call__`."""
    layers: list[Any] = []
    while function is not None and len(layers) < 20:
        layers.append(function)
        if isinstance(function, functools.partial):
            function = function.func
        elif (inner := getattr(function, "__wrapped__", None)) is not None:
            function = inner
        elif inspect.isroutine(function):
            break
        else:
            function = getattr(type(function), "__call__", None)  # noqa: B004 - what is called, not whether it can be
    return layers


def _kind(layers: list[Any]) -> str:
    if any(map(inspect.isasyncgenfunction, layers)):
        return "an async generator (it has a `yield`)"
    if any(map(inspect.isgeneratorfunction, layers)):
        return "a generator (it has a `yield`)"
    return "a plain function, which would block all other workers"


def _at(error: BaseException) -> str:
    place = _place(error)
    return f" at {place}" if place else ""


def _place(error: BaseException) -> str | None:
    """Return the innermost place outside the machinery of imports; None: nobody's code has run."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place, trace = None, error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if not path.startswith("<frozen importlib") and path not in (__file__, importlib.__file__):
            place = f"{path}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
