"""Where a task stands, as text for the journal."""

from __future__ import annotations

import linecache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_DEEPEST = 40


def await_stack(task: asyncio.Task[Any]) -> str:
    """Return the places where `task` waits, outermost first, like a traceback.

    `Task.get_stack()` knows only the outermost coroutine of a waiting task, hence the walk from each
    coroutine to the one it awaits.
    """
    lines: list[str] = []
    waiter: Any = task.get_coro()
    while waiter is not None and len(lines) < _DEEPEST:
        frame = _part(waiter, "frame")
        if frame is not None:
            path, line = frame.f_code.co_filename, frame.f_lineno
            source = linecache.getline(path, line).strip()
            lines.append(f'  File "{path}", line {line}, in {frame.f_code.co_qualname}\n    {source}')
        waiter = _part(waiter, "await") or _part(waiter, "yieldfrom")
    return "\n".join(lines)


def _part(waiter: object, name: str) -> Any:
    """Return an attribute that coroutines, generators and async generators spell differently."""
    for prefix in ("cr_", "gi_", "ag_"):
        if (part := getattr(waiter, prefix + name, None)) is not None:
            return part
    return None
