"""The one journal of the process, and `log_event`, by which the daemon says what happened."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING

from supervisor.journal.entry import Entry
from supervisor.journal.events import EVENTS, LEVELS, WARNING
from supervisor.journal.failure import capture_traceback, describe_failure
from supervisor.journal.folding import Key
from supervisor.journal.outlet import choose_outlet, hold_standard_streams
from supervisor.journal.value import safe_fields
from supervisor.journal.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.clock import Clock
    from supervisor.journal.events import Kind
    from supervisor.journal.outlet import Outlet
    from supervisor.journal.value import Value
    from supervisor.journal.writer import Counts

    # Called in the teller's thread with event, level and fields, before levels and folding.
    Observer = Callable[[str, int, Mapping[str, Value]], None]

_open: Journal | None = None
_observers: tuple[Observer, ...] = ()


class Journal:
    """Where entries go while it is open."""

    def __init__(self, outlet: Outlet, *, level: str, clock: Clock) -> None:
        self.threshold = LEVELS[level]
        self._clock = clock
        self._writer = Writer(outlet, clock=clock)
        self._writer.start()

    @property
    def counts(self) -> Counts:
        """How many entries were written, folded and dropped so far."""
        return self._writer.counts

    def set_level(self, level: str) -> None:
        """Say entries from this level on."""
        self.threshold = LEVELS[level]
        from supervisor.journal.library import follow_level  # noqa: PLC0415 - it imports this module

        follow_level(self.threshold)

    def set_format(self, log_format: str, environ: Mapping[str, str] | None = None) -> None:
        """Write in this form from now on: `auto`, `journal`, `terminal` or `json`."""
        self._writer.outlet = choose_outlet(log_format, os.environ if environ is None else environ)

    def flush(self, limit_s: float) -> bool:
        """Wait at most `limit_s` seconds until what was told so far is written; return whether it is."""
        return self._writer.flush(limit_s)

    def close(self, limit_s: float = 1.0) -> bool:
        """Write what is left, within `limit_s` seconds, and hand Python's own logging back."""
        global _open  # noqa: PLW0603 - one journal for the process
        from supervisor.journal.library import release_logging  # noqa: PLC0415 - it imports this module

        release_logging()
        if _open is self:
            _open = None
        return self._writer.close(limit_s)

    def take(
        self, kind: Kind | None, event: str, level: int, fields: dict[str, Value], exc: BaseException | None
    ) -> None:
        """Fold or queue one entry."""

        def build() -> Entry:
            # A traceback is captured only for an entry that is shown: it is the most expensive part.
            trace = None if exc is None else capture_traceback(exc)
            return Entry(event, level, self._clock.wall_time(), fields, kind, trace)

        if kind is not None and kind.is_answer:
            self._writer.put(build())
        else:
            grows = kind is None or not kind.is_state_change
            self._writer.offer(_key(event, level, fields), build, grows=grows)


def open_journal(*, level: str, format: str, clock: Clock, environ: Mapping[str, str] | None = None) -> Journal:  # noqa: A002 - the configuration's word
    """Open the journal of the process; Python's own logging, warnings and uncaught exceptions go the same way.

    Args:
        level: The lowest level that is said.
        format: `auto`, `journal`, `terminal` or `json`.
        clock: What time it is.
        environ: Instead of the process's own.
    """
    global _open  # noqa: PLW0603 - one journal for the process
    from supervisor.journal.library import take_over_logging  # noqa: PLC0415 - it imports this module

    hold_standard_streams()
    _open = Journal(choose_outlet(format, os.environ if environ is None else environ), level=level, clock=clock)
    take_over_logging(_open.threshold)
    return _open


def log_event(event: str, /, *, exc: BaseException | None = None, level: str | None = None, **fields: object) -> None:
    """Say one entry of the table; costs microseconds and never waits.

    Args:
        event: A name of the table.
        exc: What caused it: gives error_type, error, sqlstate, place and traceback.
        level: Instead of the table's.
        fields: What is known. Their names are lower case.

    Raises:
        KeyError: The table has no such event: a fault of ours.
    """
    kind = EVENTS[event]
    say(kind, event, kind.level if level is None else LEVELS[level], fields, exc)


def say(kind: Kind | None, event: str, level: int, fields: dict[str, object], exc: BaseException | None = None) -> None:
    """Say one entry of any kind, at any level."""
    journal = _open
    if not _observers and (journal is None or level < journal.threshold):
        return
    safe = safe_fields(fields)
    if exc is not None:
        safe.update(describe_failure(exc))
    for observer in _observers:
        observer(event, level, safe)
    if journal is not None and level >= journal.threshold:
        journal.take(kind, event, level, safe, exc)


def observe(observer: Observer) -> Callable[[], None]:
    """Call `observer(event, level, fields)` for every entry told from now on, in the teller's thread.

    It sees all levels and what is folded too, whether a journal is open or not. Returns what ends it.
    """
    global _observers  # noqa: PLW0603 - one journal for the process
    _observers = (*_observers, observer)

    def stop() -> None:
        global _observers  # noqa: PLW0603 - the same
        _observers = tuple(other for other in _observers if other is not observer)

    return stop


def flush_journal(limit_s: float) -> None:
    """Wait at most `limit_s` seconds until the open journal, if there is one, has written everything."""
    if _open is not None:
        _open.flush(limit_s)


def _key(event: str, level: int, fields: dict[str, Value]) -> Key:
    worker = fields.get("worker")
    if level >= WARNING:
        detail: object = (fields.get("error_type"), fields.get("place"))
    else:
        # Not hash(): that of -1 and -2 is the same. Not the fields themselves: thousands of keys are kept.
        detail = blake2b(repr(fields).encode(), digest_size=16).digest()
    return Key(event, worker if isinstance(worker, str) else None, level, detail)
