"""The sentences of the table, rendered from an entry's fields; a missing field never raises.

The language: `{name}` is a field's value, a number in a field `…_s` is a duration, `{count|attempt}` is "1 attempt" or
"5 attempts", `{count?waits:wait}` is the first word when the field is 1, and a part in `[…]` is left out when one of
its fields is missing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.journal.fields import Value

_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_FIELD = re.compile(r"\{(\w+)(?:\|([\w ]+)|\?(\w+):(\w+))?\}")
# A value inside a user's message; its field carries the whole.
_PREVIEW_CHARS = 200


def render_sentence(template: str, fields: Mapping[str, Value]) -> str:
    """Return the sentence of an event of the table for these fields."""

    def fill(match: re.Match[str]) -> str:
        if match[3]:
            return match[3] if fields.get(match[1]) == 1 else match[4]
        text = _render_field(match[1], match[2], fields)
        # Many a reason is a sentence of its own; the template has the full stop.
        return text.removesuffix(".") if match.string.startswith(".", match.end()) else text

    def fill_optional(match: re.Match[str]) -> str:
        names = (field[1] for field in _FIELD.finditer(match[1]))
        known = all(_find(name, fields) not in (None, "", ()) for name in names)
        return match[1] if known else ""

    return _FIELD.sub(fill, _OPTIONAL.sub(fill_optional, template))


def names_in(template: str) -> frozenset[str]:
    """Return the names of the fields that a sentence shows."""
    return frozenset(match[1] for match in _FIELD.finditer(template))


def render_worker_event(event: str, fields: Mapping[str, Value]) -> str:
    """Return the message of a worker's own event: its text, then its fields as `key=value`."""
    return " ".join([event, *(f"{name}={preview(value)}" for name, value in fields.items())])


def as_text(value: Value) -> str:
    """Return a value the way people read it."""
    if isinstance(value, tuple):
        texts = [as_text(item) for item in value]
        return ("\n" if any("\n" in text or ": " in text for text in texts) else ", ").join(texts)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _find(name: str, fields: Mapping[str, Value]) -> Value:
    value = fields.get(name)
    if value is None and name in ("reason", "faults"):
        # A cause is given as a reason or as the exception itself.
        return fields.get("error", fields.get("error_type"))
    return value


def _render_field(name: str, noun: str | None, fields: Mapping[str, Value]) -> str:
    value = _find(name, fields)
    if value is None:
        return f"some {_plural(noun)}" if noun else "unknown"
    if noun is not None:
        count = len(value) if isinstance(value, tuple) else value
        return f"{as_text(count)} {noun if count == 1 else _plural(noun)}"
    if name.endswith("_s") and isinstance(value, int | float):
        return format_duration(value)
    return as_text(value)


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def preview(value: Value) -> str:
    """Return a value on one line, cut and quoted where that is needed."""
    text = as_text(value)
    if len(text) > _PREVIEW_CHARS:
        text = text[:_PREVIEW_CHARS] + "…"
    return repr(text) if text == "" or any(letter in text for letter in " \n\t\"'=") else text
