"""An entry: as it was told, and as it is written."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from supervisor.journal.events import EVENTS, Kind
from supervisor.journal.failure import format_traceback
from supervisor.journal.redaction import redact
from supervisor.journal.sentence import names_in, render_own, render_sentence
from supervisor.journal.value import LIMIT, OVERLAP

if TYPE_CHECKING:
    from datetime import datetime
    from traceback import TracebackException

    from supervisor.journal.folding import Repeated
    from supervisor.journal.value import Value

# In every entry of its own right, or the concern of the traceback below it: not repeated beside a sentence.
_NOT_BESIDE = frozenset({"traceback", "stack", "error", "error_type", "place", "replica"})
# To find entries by; the sentence says the same in words.
_FOR_FILTERS = frozenset({"error_class", "address", "path"})


class Entry(NamedTuple):
    """What the caller's thread hands to the writer.

    Attributes:
        event: A name of the table, or the text of a worker's own event.
        level: One of the numbers of `events.py`.
        at: Wall time.
        fields: Plain values, secrets not yet replaced.
        kind: The event's row in the table; None for a worker's own.
        failure: The traceback, not yet formatted.
    """

    event: str
    level: int
    at: datetime
    fields: dict[str, Value]
    kind: Kind | None
    failure: TracebackException | str | None = None

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory while it waits."""
        return 500 + sum(map(_length, self.fields.values())) + (4000 if self.failure is not None else 0)


class Rendered(NamedTuple):
    """What is written, free of secrets.

    Attributes:
        event: The event's name.
        level: One of the numbers of `events.py`.
        at: Wall time.
        message: The sentence for an operator.
        message_id: The event's 128 bits as hexadecimal digits.
        fields: Everything that is known, `traceback` included.
        beside: The names of the fields that the message does not say, for people at a terminal.
    """

    event: str
    level: int
    at: datetime
    message: str
    message_id: str
    fields: dict[str, Value]
    beside: tuple[str, ...]


def render(entry: Entry) -> Rendered:
    """Return an entry as it is written; takes its time, so that only the writer's thread does it."""
    fields = {name: _clean(value) for name, value in entry.fields.items()}
    if entry.kind is None:
        event = redact(entry.event)
        own = {name: value for name, value in fields.items() if name not in ("worker", "traceback", *_NOT_BESIDE)}
        if "error_type" in fields:
            own["error"] = f"{fields['error_type']}: {fields.get('error')}"
        elif "error" in fields:
            own["error"] = fields["error"]
        message, message_id = render_own(event, own), own_message_id(event)
        beside: tuple[str, ...] = ()
    else:
        event, message_id = entry.kind.name, entry.kind.message_id
        message = render_sentence(entry.kind.sentence, fields)
        said = names_in(entry.kind.sentence) | _NOT_BESIDE | _FOR_FILTERS
        beside = tuple(name for name, value in fields.items() if name not in said and value != 0)
    if entry.failure is not None:
        fields["traceback"] = redact(format_traceback(entry.failure))
    return Rendered(event, entry.level, entry.at, redact(message), message_id, fields, beside)


@lru_cache(maxsize=1024)
def own_message_id(event: str) -> str:
    """Return the MESSAGE_ID of a worker's own event: always the same for the same text."""
    digest = hashlib.blake2b(event.encode("utf-8", "backslashreplace"), digest_size=16, person=b"pgsupervisor")
    return digest.hexdigest()


def repeated(told: Repeated, at: datetime) -> Entry:
    """Return the entry that tells how many equal ones were left out."""
    fields: dict[str, Value] = {"of_event": told.key.event, "count": told.times, "over_s": round(told.over_s, 3)}
    if told.key.worker is not None:
        fields["worker"] = told.key.worker
    return Entry("log.repeated", told.key.level, at, fields, EVENTS["log.repeated"])


def dropped(count: int, reason: str, at: datetime) -> Entry:
    """Return the entry that tells how many were lost."""
    kind = EVENTS["log.dropped"]
    return Entry(kind.name, kind.level, at, {"count": count, "reason": reason}, kind)


def _clean(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(_clean(item) for item in value)
    if not isinstance(value, str):
        return value
    if len(value) <= LIMIT:
        return redact(value)
    # The end of the overlap may hold half a secret, see value.py.
    return redact(value)[:-OVERLAP][:LIMIT] + "… (cut)"


def _length(value: Value) -> int:
    if isinstance(value, tuple):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str) else 50
