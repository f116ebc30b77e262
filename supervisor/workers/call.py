"""One call of a user's function, whatever it turns out to be."""

from __future__ import annotations

from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any

from supervisor.journal import current_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.workers.context import Context


async def call(function: Callable[[Context], Any], context: Context) -> None:
    """Call a worker's function and await it.

    Raises:
        TypeError: It was no coroutine after all, which the check at the start cannot always see.
    """
    # Runs in the worker's own task, whose tasks inherit it: a library's entry says whose doing it was.
    current_worker.set(context.name)
    made = function(context)
    if not isawaitable(made):
        raise TypeError(f"{context.name} made {type(made).__name__!r} instead of a coroutine: is it `async def`?")
    result = await made
    if iscoroutine(result):
        # Or Python warns of it, later and elsewhere.
        result.close()
        raise TypeError(f"{context.name} returned a coroutine that nobody awaits: is an `await` missing?")
