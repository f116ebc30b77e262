"""Imports the users' functions, in a thread and with a deadline: an import may do anything, and hang."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from supervisor.clock import done_within
from supervisor.config.model import Projection
from supervisor.durations import format_duration
from supervisor.errors import ConfigError, ConfigFault
from supervisor.journal import adopt_structlog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from supervisor.clock import Clock
    from supervisor.config.model import WorkerSpec

LIMIT_S = 30.0
_INSTALLED = ("site-packages", "dist-packages")


async def load(
    specs: Iterable[WorkerSpec],
    *,
    python_path: Iterable[Path],
    source: str,
    clock: Clock,
    limit_s: float = LIMIT_S,
) -> Mapping[str, Any]:
    """Import the function of each worker, and return them by the worker's name.

    What Python has imported before is not executed again.

    Args:
        specs: The workers.
        python_path: Folders to import from, after the standard library and before what is installed.
        source: The configuration's file, for the faults.
        clock: Time.
        limit_s: How long all imports together may take.

    Raises:
        ConfigError: With a fault for each worker that cannot be loaded. A thread whose import hangs
            is left behind; it does not keep the process from ending.
    """
    _extend_path(python_path)
    import_ = _Import([*specs], asyncio.get_running_loop())
    threading.Thread(target=import_.run, name="import workers", daemon=True).start()
    await done_within(import_.done, limit_s, clock=clock)
    problems = import_.problems if import_.done.done() else {**import_.problems, **import_.unfinished(limit_s)}
    if problems:
        raise ConfigError(*(ConfigFault(source, f"workers.{name}.run", problem) for name, problem in problems.items()))
    if "structlog" in sys.modules:
        adopt_structlog()  # what workers say through it goes the way of everything else
    return import_.functions


def _extend_path(folders: Iterable[Path]) -> None:
    """Add folders to `sys.path`, once and in their order: behind the standard library, before what is installed.

    Behind, because the daemon itself goes on importing: a worker's own `queue.py` or `select.py` in front
    would take the standard library's place in every room of the house. Before, because a package that
    happens to be installed must not take the place of a user's own module.
    """
    ours = [*dict.fromkeys(map(str, folders))]
    installed = (n for n, entry in enumerate(sys.path) if entry.endswith(_INSTALLED) and entry not in ours)
    place = next(installed, len(sys.path))
    sys.path[place:place] = [folder for folder in ours if folder not in sys.path]


class _Import:
    """The imports of one configuration; `run()` is the thread's, the rest the loop's."""

    def __init__(self, specs: list[WorkerSpec], loop: asyncio.AbstractEventLoop) -> None:
        self.functions: dict[str, Any] = {}
        self.problems: dict[str, str] = {}
        self.done: asyncio.Future[None] = loop.create_future()
        self._specs = specs
        self._loop = loop
        self._thread_id: int | None = None
        self._current: WorkerSpec | None = None

    def run(self) -> None:
        """Import everything, one after the other."""
        self._thread_id = threading.get_ident()
        import importlib  # noqa: PLC0415 - the thread's own business

        from supervisor.workers.finding import NotUsable, find  # noqa: PLC0415 - it imports inspect; only here

        # Files may have appeared since a folder was last read.
        importlib.invalidate_caches()
        found: dict[tuple[str, bool], Any] = {}
        for spec in self._specs:
            self._current = spec
            takes_events = isinstance(spec.kind, Projection)
            try:
                if (spec.run, takes_events) not in found:
                    found[spec.run, takes_events] = find(spec.run, takes_events=takes_events)
                self.functions[spec.name] = found[spec.run, takes_events]
            except NotUsable as problem:
                self.problems[spec.name] = str(problem)
        self._current = None
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def unfinished(self, limit_s: float) -> dict[str, str]:
        """Return the problem of each worker that the deadline found unfinished."""
        current = self._current
        if current is None:
            return {}
        left = [spec for spec in self._specs if spec.name not in self.functions and spec.name not in self.problems]
        hung = f"importing {current.run.partition(':')[0]!r} has not ended after {format_duration(limit_s)}"
        return {
            spec.name: hung + self._place()
            if spec.run == current.run
            else f"was not imported, because worker {current.name!r} came first and {hung}"
            for spec in left
        }

    def _place(self) -> str:
        """Return where the thread stands, as far as it is somebody's own code."""
        frame = sys._current_frames().get(self._thread_id or 0)  # noqa: SLF001 - documented, and the only way to see it
        while frame is not None:
            path = frame.f_code.co_filename
            if "importlib" not in path and path != threading.__file__ and frame.f_code.co_name == "<module>":
                return f"; it stands at {path}:{frame.f_lineno}"
            frame = frame.f_back
        return ""
