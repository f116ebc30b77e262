"""An entry: as it was logged, and as it is written."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from supervisor.journal.events import EVENTS, EventType
from supervisor.journal.exceptions import format_traceback
from supervisor.journal.fields import LIMIT, OVERLAP
from supervisor.journal.redaction import redact
from supervisor.journal.templates import names_in, preview, render_sentence, render_worker_event

if TYPE_CHECKING:
    from datetime import datetime
    from traceback import TracebackException

    from supervisor.journal.dedup import Suppressed
    from supervisor.journal.fields import Value

# In every entry as fields, or part of the traceback below it: not repeated beside a sentence.
_HIDDEN = frozenset({"traceback", "stack", "error", "error_type", "place", "replica"})
# To find entries by; the sentence contains the same in words.
_FOR_FILTERS = frozenset({"error_class", "address", "path"})
_MAX_SUMMARY_CHARS = 1000
_MAX_SUMMARY_FIELDS = 16
_OF_EVERY_EVENT: tuple[str, ...] = ("worker", "error_type", "place")
_EMPTY = (None, "", ())
# Fields of log.repeated; what was repeated has no fields of these names.
REPEATED_FIELDS = frozenset({"of_event", "count", "over_s", "same", "latest"})


class Entry(NamedTuple):
    """What the caller's thread hands to the writer.

    Attributes:
        event: A name of the table, or the text of a worker's own event.
        level: One of the numbers of `events.py`.
        at: Wall time.
        fields: Plain values, secrets not yet replaced.
        event_type: The event's row in the table; None for a worker's own.
        traceback: Not yet formatted.
    """

    event: str
    level: int
    at: datetime
    fields: dict[str, Value]
    event_type: EventType | None
    traceback: TracebackException | str | None = None

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory while it waits."""
        return 500 + sum(map(_length, self.fields.values())) + (4000 if self.traceback is not None else 0)


class Rendered(NamedTuple):
    """What is written, free of secrets.

    Attributes:
        event: The event's name.
        level: One of the numbers of `events.py`.
        at: Wall time.
        message: The sentence for an operator.
        message_id: The event's 128 bits as hexadecimal digits.
        fields: Everything that is known, `traceback` included.
        extra_fields: The names of the fields that the message does not contain, for people at a terminal.
    """

    event: str
    level: int
    at: datetime
    message: str
    message_id: str
    fields: dict[str, Value]
    extra_fields: tuple[str, ...]


class Summary(NamedTuple):
    """What is kept of an entry that was folded, for the report of the repeats."""

    event: str
    level: int
    event_type: EventType | None
    fields: dict[str, Value]


def summarize(event_type: EventType | None, event: str, level: int, fields: dict[str, Value]) -> Summary:
    """Return what the report of the repeats needs of an entry, bounded in size; called for each repeat."""
    for value in fields.values():
        if type(value) is str and len(value) > _MAX_SUMMARY_CHARS:
            break
    else:
        if len(fields) <= _MAX_SUMMARY_FIELDS:
            return Summary(event, level, event_type, fields)
    names = list(fields)[:_MAX_SUMMARY_FIELDS] if event_type is None else event_type.fold_by + event_type.varies
    fields = {name: preview(_clean(fields[name])) for name in names if name in fields}
    return Summary(event, level, event_type, fields)


def render(entry: Entry) -> Rendered:
    """Return an entry as it is written; takes its time, so that only the writer's thread does it."""
    fields = {name: _clean(value) for name, value in entry.fields.items()}
    if entry.event_type is None:
        event = redact(entry.event)
        own = {name: value for name, value in fields.items() if name != "worker" and name not in _HIDDEN}
        if "error_type" in fields:
            own["error"] = f"{fields['error_type']}: {fields.get('error')}"
        elif "error" in fields:
            own["error"] = fields["error"]
        message, message_id = render_worker_event(event, own), worker_message_id(event)
        extra_fields: tuple[str, ...] = ()
    else:
        event, message_id = entry.event_type.name, entry.event_type.message_id
        message = render_sentence(entry.event_type.sentence, fields)
        shown = names_in(entry.event_type.sentence) | _HIDDEN | _FOR_FILTERS
        extra_fields = tuple(name for name, value in fields.items() if name not in shown and value != 0)
    if entry.traceback is not None:
        fields["traceback"] = redact(format_traceback(entry.traceback))
    return Rendered(event, entry.level, entry.at, redact(message), message_id, fields, extra_fields)


@lru_cache(maxsize=1024)
def worker_message_id(event: str) -> str:
    """Return the MESSAGE_ID of a worker's own event: always the same for the same text."""
    digest = hashlib.blake2b(event.encode("utf-8", "backslashreplace"), digest_size=16, person=b"pgsupervisor")
    return digest.hexdigest()


def repeated_entry(suppressed: Suppressed[Summary], at: datetime) -> Entry:
    """Return the entry that reports how many equal ones were left out, and what they have in common."""
    event, level, event_type, known = suppressed.latest
    if event_type is None:
        # The fields of a worker's own event may have any name: only the daemon's become fields here.
        shared, latest, field_names = known, {}, _OF_EVERY_EVENT
    else:
        shared = {name: known[name] for name in event_type.fold_by if name in known}
        latest = {name: known[name] for name in event_type.varies if name in known}
        field_names = event_type.fold_by
    report: dict[str, Value] = {
        **{name: known[name] for name in field_names if known.get(name) not in _EMPTY and name != "stack"},
        "of_event": event,
        "count": suppressed.times,
        "over_s": round(suppressed.over_s, 3),
        "same": _name_values(shared),
    }
    if text := _name_values(latest):
        report["latest"] = text
    return Entry("log.repeated", level, at, report, EVENTS["log.repeated"])


def dropped_entry(count: int, reason: str, at: datetime) -> Entry:
    """Return the entry that reports how many were lost."""
    event_type = EVENTS["log.dropped"]
    return Entry(event_type.name, event_type.level, at, {"count": count, "reason": reason}, event_type)


def _name_values(fields: dict[str, Value]) -> str:
    return " ".join(
        f"{name}={preview(_clean(value))}" for name, value in fields.items() if name != "stack" and value not in _EMPTY
    )


def _clean(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(_clean(item) for item in value)
    if not isinstance(value, str):
        return value
    if len(value) <= LIMIT:
        return redact(value)
    # The end of the overlap may hold half a secret, see fields.py.
    return redact(value)[:-OVERLAP][:LIMIT] + "… (cut)"


def _length(value: Value) -> int:
    if isinstance(value, tuple):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str) else 50
