"""Equal entries are folded: the first is shown at once, its repeats are counted and reported later.

Each key has a window, one second at first. A repeat inside it is counted. A window with repeats ends with a report of
their number, and the next one is twice as long, up to ten minutes; a window without repeats forgets the key. So a
stream slower than one entry a second is shown in full, a fast one costs a logarithm of its length, and an entry with a
different key is never left out. The caller decides what belongs to a key (`EventType.fold_by`) and whether its window
widens: for changes of state it does not.

Entries of one key may have variants, such as the messages of an error: the first eight of a key are shown each, any
further one is a repeat, for there may be endlessly many. A key's variants are forgotten with the key.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")
_MAX_VARIANTS = 8


class Suppressed(NamedTuple, Generic[T]):
    """Entries that were left out because they were equal to one that was shown.

    Attributes:
        key: What they have in common.
        times: How many they are.
        over_s: Since when, in seconds before the report.
        latest: The caller's description of the last one.
    """

    key: Hashable
    times: int
    over_s: float
    latest: T


class _Window(Generic[T]):
    __slots__ = ("began_s", "count", "ends_s", "is_scheduled", "latest", "length_s", "variants", "widens")

    def __init__(self, began_s: float, length_s: float, variants: set[Hashable], *, widens: bool) -> None:
        self.began_s = began_s
        self.length_s = length_s
        self.ends_s = began_s + length_s
        self.variants = variants
        self.widens = widens
        self.count = 0
        # Whether its end is among those that the deduplicator looks at.
        self.is_scheduled = False
        self.latest: T


class Deduplicator(Generic[T]):
    """Decides which entries are shown, and what is reported of the others."""

    def __init__(self, *, first_window_s: float = 1.0, max_window_s: float = 600.0, max_keys: int = 4096) -> None:
        self._first_s = first_window_s
        self._max_s = max_window_s
        self._max_keys = max_keys
        # In the order in which the windows began.
        self._windows: dict[Hashable, _Window[T]] = {}
        # Ends of windows that saw a repeat or another variant. One whose window has been forgotten since is skipped.
        self._ends: list[tuple[float, int, Hashable, _Window[T]]] = []
        self._pushed = 0
        self._unreported: list[Suppressed[T]] = []

    def admit(
        self,
        key: Hashable,
        now_s: float,
        describe: Callable[[], T],
        *,
        widens: bool = True,
        variant: Hashable = None,
    ) -> bool:
        """Return whether an entry is shown; if not, it has been counted.

        Args:
            key: Equal for equal entries.
            now_s: The present moment, never earlier than in the call before.
            describe: Called for an entry that is left out: what the report says of the latest one.
            widens: Whether the key's window gets longer while entries keep coming.
            variant: What may differ between entries of the key.
        """
        if self._ends and self._ends[0][0] <= now_s:
            self._end_windows(now_s)
        window = self._windows.get(key)
        if window is not None and now_s < window.ends_s:
            if not window.is_scheduled:
                # Only now: a key that is never repeated must not wake the writer.
                window.is_scheduled = True
                self._pushed += 1
                heappush(self._ends, (window.ends_s, self._pushed, key, window))
            if variant not in window.variants and len(window.variants) < _MAX_VARIANTS:
                window.variants.add(variant)
                return True
            window.count += 1
            window.latest = describe()
            return False
        self._make_room(now_s)
        self._begin(key, _Window(now_s, self._first_s, {variant}, widens=widens))
        return True

    def take_due(self, now_s: float) -> list[Suppressed[T]]:
        """Return what is to be reported by now; each count is returned once."""
        self._end_windows(now_s)
        due, self._unreported = self._unreported, []
        return due

    def take_all(self, now_s: float) -> list[Suppressed[T]]:
        """Return every count there is, and forget all keys: the last report before the end."""
        while self._windows:
            self._forget_oldest(now_s)
        self._ends.clear()
        return self.take_due(now_s)

    def next_due_s(self) -> float | None:
        """Return the moment from which `take_due` may return something; None: not before the next entry."""
        if self._unreported:
            return float("-inf")
        return self._ends[0][0] if self._ends else None

    def _begin(self, key: Hashable, window: _Window[T]) -> None:
        self._windows.pop(key, None)
        self._windows[key] = window

    def _end_windows(self, now_s: float) -> None:
        while self._ends and self._ends[0][0] <= now_s:
            _, _, key, window = heappop(self._ends)
            if self._windows.get(key) is not window:
                continue
            self._report(key, window, now_s)
            length_s = min(window.length_s * 2, self._max_s) if window.widens else window.length_s
            self._begin(key, _Window(now_s, length_s, window.variants, widens=window.widens))

    def _make_room(self, now_s: float) -> None:
        # Two go for each one that comes, so that what is over never piles up.
        for _ in range(2):
            oldest = next(iter(self._windows.values()), None)
            if oldest is not None and oldest.ends_s <= now_s:
                self._forget_oldest(now_s)
        if len(self._windows) >= self._max_keys:
            self._forget_oldest(now_s)

    def _forget_oldest(self, now_s: float) -> None:
        key = next(iter(self._windows))
        self._report(key, self._windows.pop(key), now_s)

    def _report(self, key: Hashable, window: _Window[T], now_s: float) -> None:
        if window.count:
            self._unreported.append(Suppressed(key, window.count, now_s - window.began_s, window.latest))
