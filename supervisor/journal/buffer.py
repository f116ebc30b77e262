"""The bounded queue between those who tell and the one thread that writes."""

from __future__ import annotations

from collections import deque
from threading import Event
from typing import TypeAlias

from supervisor.journal.entry import Entry
from supervisor.journal.events import WARNING

# An Event is a mark: it is set when everything before it has been written.
Item: TypeAlias = Entry | Event


class Buffer:
    """Entries that wait to be written; what does not fit is counted. The caller holds the lock.

    The last quarter is kept for warnings and errors, so that a worker's chatter cannot push out the cause of it.
    """

    def __init__(self, *, most_entries: int = 8192, most_bytes: int = 8 * 1024 * 1024) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self.overflowed = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, entry: Entry) -> None:
        """Add an entry, or count it as lost."""
        share = 1.0 if entry.level >= WARNING else 0.75
        size_bytes = entry.size_bytes
        if len(self._items) >= self._most_entries * share or self._bytes + size_bytes > self._most_bytes * share:
            self.overflowed += 1
            return
        self._items.append(entry)
        self._bytes += size_bytes

    def mark(self) -> Event:
        """Return an event that is set when everything put so far has been written or given up."""
        event = Event()
        self._items.append(event)
        return event

    def take(self) -> Item | None:
        """Return the oldest item, None when there is none."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, Entry):
            self._bytes -= item.size_bytes
        return item

    def take_overflowed(self) -> int:
        """Return how many did not fit since the last call."""
        count, self.overflowed = self.overflowed, 0
        return count
