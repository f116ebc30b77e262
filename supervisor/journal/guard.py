"""A lock that never deadlocks with itself."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Guard:
    """Mutual exclusion between threads that tells a thread when it has interrupted itself.

    The garbage collector and signal handlers run Python between any two statements, under any lock, and may want to
    log. `with guard as alone`: when `alone` is false, this very thread is in the middle of what the guard protects.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._depth = 0

    def __enter__(self) -> bool:
        self._lock.acquire()
        self._depth += 1
        return self._depth == 1

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        self._lock.release()
