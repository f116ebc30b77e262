"""The one journal of the process, and `log_event`, by which the daemon logs its events."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from supervisor.journal.entry import Entry, Summary, summarize
from supervisor.journal.events import EVENTS, LEVELS
from supervisor.journal.exceptions import capture_traceback, describe_exception
from supervisor.journal.fields import safe_fields
from supervisor.journal.sinks import choose_sink
from supervisor.journal.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from supervisor.clock import Clock
    from supervisor.journal.events import EventType
    from supervisor.journal.fields import Value
    from supervisor.journal.sinks import Sink
    from supervisor.journal.writer import Counts

    # Called in the caller's thread with event, level and fields, before levels and folding.
    Observer = Callable[[str, int, Mapping[str, Value]], None]

_open: Journal | None = None
_observers: tuple[Observer, ...] = ()
# Longer texts are compared by their digest: thousands of keys are kept.
_MAX_KEY_CHARS = 200
_MAX_VARIANT_CHARS = 300  # eight are kept for each key
_WORD_WITH_DIGIT = re.compile(r"(?<![\w-])(?:[^\W\d]|-)*+\d[\w-]*")
_SERIAL_NUMBER = re.compile(r"\b0x[0-9a-f]+|(?<=\bThread-)\d+|(?<=\bTask-)\d+")


class Journal:
    """Where entries go while it is open."""

    def __init__(
        self, sink: Sink, *, level: str, clock: Clock, on_level: Callable[[int], None], on_close: Callable[[], None]
    ) -> None:
        """Start the writer's thread.

        Args:
            sink: Where entries go.
            level: The lowest level that is written.
            clock: Time.
            on_level: Called with the new threshold when the level changes.
            on_close: Called when the journal closes.
        """
        self.threshold = LEVELS[level]
        self._clock = clock
        self._on_level = on_level
        self._on_close = on_close
        self._writer = Writer(sink, clock=clock)
        self._writer.start()

    @property
    def counts(self) -> Counts:
        """How many entries were written, folded and dropped so far."""
        return self._writer.counts

    def set_level(self, level: str) -> None:
        """Write entries from this level on."""
        self.threshold = LEVELS[level]
        self._on_level(self.threshold)

    def set_format(self, format: str, environ: Mapping[str, str] | None = None) -> None:  # noqa: A002 - as in the configuration
        """Write in this form from now on: `auto`, `journal`, `terminal` or `json`."""
        self._writer.sink = choose_sink(format, os.environ if environ is None else environ)

    def flush(self, limit_s: float) -> bool:
        """Wait at most `limit_s` seconds until what was logged so far is written; return whether it is."""
        return self._writer.flush(limit_s)

    def close(self, limit_s: float = 1.0) -> bool:
        """Write what is left, within `limit_s` seconds, and restore Python's own logging."""
        self._on_close()
        remove_journal(self)
        return self._writer.close(limit_s)

    def submit(
        self,
        event_type: EventType | None,
        event: str,
        level: int,
        fields: dict[str, Value],
        failure: tuple[BaseException, int] | None,
    ) -> None:
        """Fold or queue one entry; `failure`: an exception and its key, see `describe_exception`."""
        exc, failure_key = failure or (None, None)

        def build() -> Entry:
            # A traceback is captured only for an entry that is shown: it is the most expensive part.
            trace = None if exc is None else capture_traceback(exc)
            return Entry(event, level, self._clock.wall_time(), fields, event_type, trace)

        def describe() -> Summary:
            return summarize(event_type, event, level, fields)

        variant = None if failure is None else _without_numbers(str(fields["error"])[:_MAX_VARIANT_CHARS])
        if event_type is None:
            self._writer.submit(_worker_key(event, level, fields, failure_key), build, describe, variant=variant)
        elif event_type.never_folded:
            self._writer.put(build())
        else:
            path = failure_key if event_type.folds_by_path else None
            key: tuple[object, ...] = (event, level, path, *map(fields.get, event_type.fold_by))
            if event_type.folds_by_text:
                key = tuple(map(_comparable, key))
            if not event_type.has_variants:
                variant = None
            self._writer.submit(key, build, describe, widens=not event_type.keeps_short_window, variant=variant)


def log_event(event: str, /, *, exc: BaseException | None = None, level: str | None = None, **fields: object) -> None:
    """Log one event of the table; costs microseconds and never waits.

    Args:
        event: A name of the table.
        exc: The cause: gives error_type, error, sqlstate, place and traceback.
        level: Instead of the table's.
        fields: What is known. Their names are lower case.

    Raises:
        KeyError: The table has no such event: a bug of ours.
    """
    event_type = EVENTS[event]
    emit(event_type, event, event_type.level if level is None else LEVELS[level], fields, exc)


def emit(
    event_type: EventType | None,
    event: str,
    level: int,
    fields: dict[str, object],
    exc: BaseException | None = None,
) -> None:
    """Log one entry of any kind, at any level."""
    journal = _open
    if not _observers and (journal is None or level < journal.threshold):
        return
    safe, failure = safe_fields(fields), None
    if exc is not None:
        description, failure_key = describe_exception(exc)
        safe.update(description)
        failure = exc, failure_key
    for observer in _observers:
        observer(event, level, safe)
    if journal is not None and level >= journal.threshold:
        journal.submit(event_type, event, level, safe, failure)


def observe(observer: Observer) -> Callable[[], None]:
    """Call `observer(event, level, fields)` for every entry logged from now on, in the caller's thread.

    It sees all levels and what is folded too, whether a journal is open or not. Returns what ends it.
    """
    global _observers  # noqa: PLW0603 - one journal for the process
    _observers = (*_observers, observer)

    def stop() -> None:
        global _observers  # noqa: PLW0603 - the same
        _observers = tuple(other for other in _observers if other is not observer)

    return stop


def install_journal(journal: Journal) -> None:
    """Make this the journal of the process."""
    global _open  # noqa: PLW0603 - one journal for the process
    _open = journal


def remove_journal(journal: Journal) -> None:
    """Let entries go nowhere, if this is the journal of the process."""
    global _open  # noqa: PLW0603 - one journal for the process
    if _open is journal:
        _open = None


def flush_journal(limit_s: float) -> None:
    """Wait at most `limit_s` seconds until the open journal, if there is one, has written everything."""
    if _open is not None:
        _open.flush(limit_s)


def _worker_key(event: str, level: int, fields: dict[str, Value], failure_key: int | None) -> Hashable:
    """Return what makes a worker's own entries equal: all of their fields, but not an exception's message."""
    if failure_key is not None:
        fields = {name: value for name, value in fields.items() if name != "error"}
    # Not hash(): that of -1 and -2 is the same. Not the fields themselves: thousands of keys are kept.
    return event, level, _digest(_without_serial_numbers(repr(fields))), failure_key


@lru_cache(maxsize=256)
def _without_numbers(text: str) -> str:
    """Leave out words with a digit: identifiers, times, counts and addresses make a message new each time."""
    return _WORD_WITH_DIGIT.sub("#", text)


def _comparable(value: object) -> object:
    if type(value) is not str:
        return value
    text = _without_serial_numbers(value)
    return text if len(text) <= _MAX_KEY_CHARS else _digest(text)


def _without_serial_numbers(text: str) -> str:
    """Leave out what is new with each object: addresses, and the numbers of threads and tasks without a name."""
    return _SERIAL_NUMBER.sub("", text) if "0x" in text or "Thread-" in text or "Task-" in text else text


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
