"""Equal entries are folded: the first is shown at once, its repeats are counted and told as time goes.

Each key has a window, one second at first. What is said again inside it is counted. A window that saw repeats ends with
their number being told, and the next one is twice as long, up to ten minutes; a window without repeats forgets the
key. So a stream slower than one a second is shown in full, a fast one costs a logarithm of its length, and a
different key is never swallowed. Entries that tell a change of state keep the first window for ever.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple


class Key(NamedTuple):
    """What makes two entries equal.

    Attributes:
        event: The event's name.
        worker: The worker it concerns, if one.
        level: The level it is said at.
        detail: From warnings on, the error's type and place; below, a fingerprint of all fields.
    """

    event: str
    worker: str | None
    level: int
    detail: object


class Repeated(NamedTuple):
    """So many entries equal to one that was shown have been left out over so many seconds."""

    key: Key
    times: int
    over_s: float


class _Window:
    __slots__ = ("began_s", "count", "grows", "length_s")

    def __init__(self, began_s: float, length_s: float, *, grows: bool) -> None:
        self.began_s = began_s
        self.length_s = length_s
        self.grows = grows
        self.count = 0

    @property
    def ends_s(self) -> float:
        return self.began_s + self.length_s


class Folding:
    """Which entries to show, and what to tell of the others."""

    def __init__(self, *, first_window_s: float = 1.0, longest_window_s: float = 600.0, most_keys: int = 4096) -> None:
        self._first_s = first_window_s
        self._longest_s = longest_window_s
        self._most_keys = most_keys
        # In the order in which the windows began.
        self._windows: dict[Key, _Window] = {}
        # Ends of windows that saw a repeat. One whose window has been forgotten since is skipped.
        self._ends: list[tuple[float, int, Key, _Window]] = []
        self._pushed = 0
        self._untold: list[Repeated] = []

    def shows(self, key: Key, now_s: float, *, grows: bool = True) -> bool:
        """Whether an entry is shown; if not, it has been counted.

        Args:
            key: What it is equal to.
            now_s: The present moment, never earlier than in the call before.
            grows: Whether the key's window gets longer while repeats keep coming.
        """
        self._end_windows(now_s)
        window = self._windows.get(key)
        if window is not None and now_s < window.ends_s:
            self._count(key, window)
            return False
        self._make_room(now_s)
        self._begin(key, _Window(now_s, self._first_s, grows=grows))
        return True

    def take_due(self, now_s: float) -> list[Repeated]:
        """Return what is to be told by now; each count is returned once."""
        self._end_windows(now_s)
        due, self._untold = self._untold, []
        return due

    def take_all(self, now_s: float) -> list[Repeated]:
        """Return every count there is, and forget all keys: the last word before the end."""
        while self._windows:
            self._forget_oldest(now_s)
        self._ends.clear()
        return self.take_due(now_s)

    def next_due_s(self) -> float | None:
        """Return the moment from which `take_due` has something to tell; None: not before the next repeat."""
        if self._untold:
            return float("-inf")
        return self._ends[0][0] if self._ends else None

    def _begin(self, key: Key, window: _Window) -> None:
        self._windows.pop(key, None)
        self._windows[key] = window

    def _count(self, key: Key, window: _Window) -> None:
        window.count += 1
        if window.count == 1:
            # Only now: a key that is never repeated must not wake the writer.
            self._pushed += 1
            heappush(self._ends, (window.ends_s, self._pushed, key, window))

    def _end_windows(self, now_s: float) -> None:
        while self._ends and self._ends[0][0] <= now_s:
            _, _, key, window = heappop(self._ends)
            if self._windows.get(key) is not window:
                continue
            self._tell(key, window, now_s)
            length_s = min(window.length_s * 2, self._longest_s) if window.grows else window.length_s
            self._begin(key, _Window(now_s, length_s, grows=window.grows))

    def _make_room(self, now_s: float) -> None:
        # Two go for each one that comes, so that what is over never piles up.
        for _ in range(2):
            oldest = next(iter(self._windows.values()), None)
            if oldest is not None and oldest.ends_s <= now_s:
                self._forget_oldest(now_s)
        if len(self._windows) >= self._most_keys:
            self._forget_oldest(now_s)

    def _forget_oldest(self, now_s: float) -> None:
        key = next(iter(self._windows))
        self._tell(key, self._windows.pop(key), now_s)

    def _tell(self, key: Key, window: _Window, now_s: float) -> None:
        if window.count:
            self._untold.append(Repeated(key, window.count, now_s - window.began_s))
