"""The one thread that writes, so that nobody else ever waits for journald, a terminal or a disk.

Whoever tells only folds and queues, under a lock that is never held over anything that blocks. The thread renders,
writes, retries while the place is away, and says afterwards how much was lost. Idle, it sleeps until the next count of
folded entries is due, or for ever.
"""

from __future__ import annotations

import errno
import signal
from collections import deque
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from supervisor.journal.buffer import Buffer
from supervisor.journal.entry import dropped, render, repeated
from supervisor.journal.folding import Folding
from supervisor.journal.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.clock import Clock
    from supervisor.journal.entry import Entry, Rendered
    from supervisor.journal.folding import Key
    from supervisor.journal.outlet import Outlet

_FIRST_RETRY_S = 0.05
# A place that stays away (a closed stderr) costs a system call now and then, no more.
_LONGEST_RETRY_S = 5.0
_CONFESS_EVERY = 512
# These mean this one entry, not the place.
_ENTRY_REFUSED = {errno.EMSGSIZE, errno.EINVAL}


class Counts(NamedTuple):
    """What became of the entries since the journal was opened."""

    written: int
    folded: int
    dropped: int


class Writer:
    """Folds, queues and writes entries."""

    def __init__(self, outlet: Outlet, *, clock: Clock, buffer: Buffer | None = None) -> None:
        # May be replaced at any time; the thread changes over before its next write.
        self.outlet = self._used = outlet
        self._clock = clock
        self._guard = Guard()
        self._buffer = Buffer() if buffer is None else buffer
        self._folding = Folding()
        self._late: deque[Entry] = deque()
        self._wake = Lock()
        self._wake.acquire()
        self._closing = Event()
        self._thread: Thread | None = None
        self._written = self._folded = self._dropped = 0
        self._untold = 0
        self._why = ""

    @property
    def counts(self) -> Counts:
        """What became of the entries so far."""
        return Counts(self._written, self._folded, self._dropped + self._buffer.overflowed)

    def start(self) -> None:
        """Start the thread."""
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def offer(self, key: Key, build: Callable[[], Entry], *, grows: bool) -> None:
        """Queue the entry that `build` makes, or count it when an equal one was shown just now."""
        with self._guard as alone:
            if not alone:
                # We interrupted ourselves inside: appending to a deque is all that is safe. The outer call wakes.
                self._late.append(build())
                return
            if self._folding.shows(key, self._clock.now_s(), grows=grows):
                self._buffer.put(build())
            else:
                self._folded += 1
        self._rouse()

    def put(self, entry: Entry) -> None:
        """Queue an entry that is never folded."""
        with self._guard as alone:
            if not alone:
                self._late.append(entry)
                return
            self._buffer.put(entry)
        self._rouse()

    def flush(self, limit_s: float) -> bool:
        """Wait at most `limit_s` seconds until what was told so far is written; return whether it is."""
        if self._thread is None or not self._thread.is_alive():
            return False
        with self._guard:
            mark = self._buffer.mark()
        self._rouse()
        return mark.wait(limit_s)

    def close(self, limit_s: float) -> bool:
        """Write what is left and end the thread, within `limit_s` seconds; return whether all was written.

        A thread that hangs in a write is left to the end of the process.
        """
        self._closing.set()
        self._rouse()
        if self._thread is not None:
            self._thread.join(limit_s)
            if self._thread.is_alive():
                return False
        self._used.place.close()
        return self._untold == 0

    def _rouse(self) -> None:
        with suppress(RuntimeError):  # It has been roused already.
            self._wake.release()

    def _run(self) -> None:
        # Signals are for the main thread; a write here must not be interrupted by them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            try:
                if not self._turn():
                    return
            except Exception as exc:  # noqa: BLE001 - a fault in here must not silence the daemon for good
                self._lose(1, f"{type(exc).__name__}: {exc}")
                self._closing.wait(_FIRST_RETRY_S)

    def _turn(self) -> bool:
        """Write one entry or sleep until there is something to do; return False at the end."""
        closing = self._closing.is_set()
        with self._guard:
            self._queue_late(last=closing)
            item = self._buffer.take()
            due_s = self._folding.next_due_s()
        if isinstance(item, Event):
            item.set()
        elif item is not None:
            self._write(item)
        elif closing:
            self._confess()
            return False
        elif self._untold or self._buffer.overflowed:
            self._confess()
        else:
            self._wake.acquire(timeout=-1 if due_s is None else max(0.001, due_s - self._clock.now_s()))
        return True

    def _queue_late(self, *, last: bool) -> None:
        now_s = self._clock.now_s()
        for told in self._folding.take_all(now_s) if last else self._folding.take_due(now_s):
            self._buffer.put(repeated(told, self._clock.wall_time()))
        while self._late:
            self._buffer.put(self._late.popleft())

    def _write(self, entry: Entry) -> None:
        try:
            is_written = self._put_through(render(entry))
        except Exception as exc:  # noqa: BLE001 - one odd entry must not cost the others
            return self._lose(1, f"{entry.event[:100]} could not be rendered: {type(exc).__name__}")
        if not is_written:
            return self._lose(1, self._why)
        self._written += 1
        # Losses are told when the buffer is empty, after what was said before them; in a lasting flood now and then.
        return self._confess() if self._written % _CONFESS_EVERY == 0 else None

    def _put_through(self, entry: Rendered) -> bool:
        """Write until it works, while the rest waits in the bounded buffer; return False when the entry is lost."""
        delay_s, data = _FIRST_RETRY_S, None
        while True:
            if self._used is not self.outlet:
                # A reload changed the format, perhaps because the old place is broken.
                self._used.place.close()
                self._used, data = self.outlet, None
            # The very same object at each try: a stream knows by it which line it tore.
            data = self._used.encode(entry) if data is None else data
            try:
                self._used.place.write(data)
            except OSError as exc:
                self._why = f"could not write: {exc.strerror or exc}"
                if exc.errno in _ENTRY_REFUSED or self._closing.is_set():
                    return False
            else:
                return True
            self._closing.wait(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_RETRY_S)

    def _lose(self, count: int, why: str) -> None:
        self._dropped += count
        self._untold += count
        self._why = why

    def _confess(self) -> None:
        with self._guard:
            overflowed = self._buffer.take_overflowed()
        if overflowed:
            self._lose(overflowed, self._why or "more was said than could be written")
        count, why = self._untold, self._why
        if count and self._put_through(render(dropped(count, why, self._clock.wall_time()))):
            self._written += 1
        elif self._closing.is_set():
            return
        # Told, or refused for what it is: then asking for ever would only burn time.
        self._untold, self._why = 0, ""
