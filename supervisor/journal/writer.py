"""The queue between the callers and the one thread that writes, so that nobody else waits for journald or a disk.

A caller only folds and queues. The folding is under a lock that a caller never waits for: if another thread holds it,
or this very thread does (a destructor or a signal handler may log between any two statements), the entry is queued as
it is and the writer's thread folds it. `SimpleQueue.put` may be called from anywhere, also from within itself.

The thread renders, writes, retries while the target is away, and reports afterwards how much was lost. When idle, it
sleeps until the next report of folded entries is due, or for ever.
"""

from __future__ import annotations

import errno
import signal
from queue import Empty, SimpleQueue
from threading import Event, Lock, RLock, Thread
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from supervisor.journal.dedup import Deduplicator
from supervisor.journal.entry import Entry, Summary, dropped_entry, render, repeated_entry
from supervisor.journal.events import WARNING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from supervisor.clock import Clock
    from supervisor.journal.entry import Rendered
    from supervisor.journal.sinks import Sink

_FIRST_RETRY_S = 0.05
# A target that stays away (a closed stderr) costs a system call now and then, no more.
_MAX_RETRY_S = 5.0
_REPORT_DROPPED_EVERY = 512
# These mean this one entry, not the target.
_ENTRY_REFUSED = {errno.EMSGSIZE, errno.EINVAL}


class Counts(NamedTuple):
    """What became of the entries since the journal was opened."""

    written: int
    folded: int
    dropped: int


class Unfolded(NamedTuple):
    """An entry whose caller could not fold it at once."""

    entry: Entry
    key: Hashable
    describe: Callable[[], Summary]
    widens: bool
    variant: Hashable


# An Event is set when everything before it has been written or given up.
Item: TypeAlias = Entry | Unfolded | Event


class EntryQueue:
    """Entries that wait to be written; an entry that does not fit is counted.

    The last quarter is kept for warnings and errors, so that a worker's chatter cannot push out the cause of it.
    """

    def __init__(self, *, max_entries: int = 8192, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._items: SimpleQueue[Item] = SimpleQueue()
        # Held for a few instructions, to count; a thread that interrupts itself here does no harm.
        self._lock = RLock()
        self._bytes = 0
        self.dropped = 0

    def is_empty(self) -> bool:
        """Return whether nothing waits."""
        return self._items.empty()

    def put(self, item: Entry | Unfolded) -> None:
        """Add an entry, or count it as dropped."""
        entry = item.entry if isinstance(item, Unfolded) else item
        share = 1.0 if entry.level >= WARNING else 0.75
        size_bytes = entry.size_bytes
        with self._lock:
            if self._items.qsize() >= self._max_entries * share or self._bytes + size_bytes > self._max_bytes * share:
                self.dropped += 1
                return
            self._bytes += size_bytes
        self._items.put(item)

    def mark(self) -> Event:
        """Return an event that is set when everything put so far has been taken; wakes the taker."""
        event = Event()
        self._items.put(event)
        return event

    def take(self, timeout_s: float | None) -> Item | None:
        """Return the oldest item; None when there is none within `timeout_s` seconds (None: no limit)."""
        try:
            item = self._items.get(block=timeout_s != 0, timeout=timeout_s)
        except Empty:
            return None
        if not isinstance(item, Event):
            entry = item.entry if isinstance(item, Unfolded) else item
            with self._lock:
                self._bytes -= entry.size_bytes
        return item

    def take_dropped(self) -> int:
        """Return how many did not fit since the last call."""
        with self._lock:
            count, self.dropped = self.dropped, 0
        return count


class Writer:
    """Folds, queues and writes entries."""

    def __init__(self, sink: Sink, *, clock: Clock, queue: EntryQueue | None = None) -> None:
        # May be replaced at any time; the thread changes over before its next write.
        self.sink = self._used = sink
        self._clock = clock
        self._queue = EntryQueue() if queue is None else queue
        self._fold_lock = Lock()
        self._dedup: Deduplicator[Summary] = Deduplicator()
        # Until when the thread may sleep; changed under the lock.
        self._wake_s = float("inf")
        self._closing = Event()
        self._thread: Thread | None = None
        self._written = self._folded = self._dropped = 0
        self._unreported = 0
        self._drop_reason = ""

    @property
    def counts(self) -> Counts:
        """What became of the entries so far."""
        return Counts(self._written, self._folded, self._dropped + self._queue.dropped)

    def start(self) -> None:
        """Start the thread."""
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(
        self,
        key: Hashable,
        build: Callable[[], Entry],
        describe: Callable[[], Summary],
        *,
        widens: bool = True,
        variant: Hashable = None,
    ) -> None:
        """Queue the entry that `build` makes, or count it when an equal one was shown just now.

        Args:
            key: Equal for equal entries.
            build: Makes the entry; not called for one that is left out.
            describe: Makes the summary of one that is left out.
            widens: See `Deduplicator.admit`.
            variant: The same.
        """
        if not self._fold_lock.acquire(blocking=False):
            self._queue.put(Unfolded(build(), key, describe, widens, variant))
            return
        try:
            is_shown = self._admit(key, describe, widens=widens, variant=variant)
        finally:
            self._fold_lock.release()
        if is_shown:
            self._queue.put(build())

    def put(self, entry: Entry) -> None:
        """Queue an entry that is never folded."""
        self._queue.put(entry)

    def flush(self, limit_s: float) -> bool:
        """Wait at most `limit_s` seconds until what was logged so far is written; return whether it is."""
        if self._thread is None or not self._thread.is_alive():
            return False
        return self._queue.mark().wait(limit_s)

    def close(self, limit_s: float) -> bool:
        """Write what is left and end the thread, within `limit_s` seconds; return whether all was written.

        A thread that hangs in a write is left to the end of the process.
        """
        self._closing.set()
        self._queue.mark()
        if self._thread is not None:
            self._thread.join(limit_s)
            if self._thread.is_alive():
                return False
        self._used.target.close()
        return self._unreported == 0

    def _admit(self, key: Hashable, describe: Callable[[], Summary], *, widens: bool, variant: Hashable) -> bool:
        """Fold; the caller holds the lock."""
        if self._dedup.admit(key, self._clock.now_s(), describe, widens=widens, variant=variant):
            return True
        self._folded += 1
        due_s = self._dedup.next_due_s()
        if due_s is not None and due_s < self._wake_s:
            self._wake_s = due_s
            self._queue.mark()
        return False

    def _run(self) -> None:
        # Signals are for the main thread; a write here must not be interrupted by them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            try:
                if not self._turn():
                    return
            except Exception as exc:  # noqa: BLE001 - a bug in here must not silence the daemon for good
                self._count_dropped(1, f"{type(exc).__name__}: {exc}")
                self._closing.wait(_FIRST_RETRY_S)

    def _turn(self) -> bool:
        """Write one entry or sleep until there is something to do; return False at the end."""
        closing = self._closing.is_set()
        now_s = self._clock.now_s()
        if now_s >= self._wake_s or self._queue.is_empty():
            self._queue_repeats(now_s, last=closing)
        item = self._queue.take(0)
        if item is None:
            if closing:
                self._report_dropped()
                return False
            if self._unreported or self._queue.dropped:
                self._report_dropped()
                return True
            timeout_s = None if self._wake_s == float("inf") else max(0.001, self._wake_s - now_s)
            item = self._queue.take(timeout_s)
        match item:
            case Event():
                item.set()
            case Unfolded(entry, key, describe, widens, variant):
                with self._fold_lock:
                    is_shown = self._admit(key, describe, widens=widens, variant=variant)
                if is_shown:
                    self._write(entry)
            case Entry():
                self._write(item)
            case None:
                pass
        return True

    def _queue_repeats(self, now_s: float, *, last: bool) -> None:
        with self._fold_lock:
            due = self._dedup.take_all(now_s) if last else self._dedup.take_due(now_s)
            next_due_s = self._dedup.next_due_s()
            self._wake_s = float("inf") if next_due_s is None else next_due_s
        for suppressed in due:
            self._queue.put(repeated_entry(suppressed, self._clock.wall_time()))

    def _write(self, entry: Entry) -> None:
        try:
            is_written = self._write_with_retry(render(entry))
        except Exception as exc:  # noqa: BLE001 - one odd entry must not cost the others
            return self._count_dropped(1, f"{entry.event[:100]} could not be rendered: {type(exc).__name__}")
        if not is_written:
            return self._count_dropped(1, self._drop_reason)
        self._written += 1
        # Losses are reported when the queue is empty, after earlier entries; in a lasting flood now and then.
        return self._report_dropped() if self._written % _REPORT_DROPPED_EVERY == 0 else None

    def _write_with_retry(self, entry: Rendered) -> bool:
        """Write until it works, while the rest waits in the bounded queue; return False when the entry is lost."""
        delay_s, data = _FIRST_RETRY_S, None
        while True:
            if self._used is not self.sink:
                # A reload changed the format, perhaps because the old target is broken.
                self._used.target.close()
                self._used, data = self.sink, None
            # The very same object at each try: a stream knows by it which line it tore.
            data = self._used.encode(entry) if data is None else data
            try:
                self._used.target.write(data)
            except OSError as exc:
                self._drop_reason = f"could not write: {exc.strerror or exc}"
                if exc.errno in _ENTRY_REFUSED or self._closing.is_set():
                    return False
            else:
                return True
            self._closing.wait(delay_s)
            delay_s = min(delay_s * 2, _MAX_RETRY_S)

    def _count_dropped(self, count: int, reason: str) -> None:
        self._dropped += count
        self._unreported += count
        self._drop_reason = reason

    def _report_dropped(self) -> None:
        if overflowed := self._queue.take_dropped():
            self._count_dropped(overflowed, self._drop_reason or "more was logged than could be written")
        count, reason = self._unreported, self._drop_reason
        if count and self._write_with_retry(render(dropped_entry(count, reason, self._clock.wall_time()))):
            self._written += 1
        elif self._closing.is_set():
            return
        # Reported, or refused for what it is: then asking for ever would only burn time.
        self._unreported, self._drop_reason = 0, ""
