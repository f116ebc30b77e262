"""Appending an event, in the caller's own transaction."""

from __future__ import annotations

import json
import re
from typing import Any

from supervisor.errors import InvalidEvent
from supervisor.events.flaw import flaw_of

_LONGEST = 500
_APPEND = "SELECT supervisor.append($1::text, $2::text, $3::text::jsonb)"
# Neither can be stored as PostgreSQL's text: the half of a character, and NUL, which JSON escapes. The latter may be
# a backslash of the text's own, so that this finds what is to be looked at more closely.
_SUSPECT = re.compile("[\ud800-\udfff]|\\\\u0000")


async def append(conn: Any, stream: str, type: str, data: dict[str, Any]) -> int:  # noqa: A002 - the contract's name
    """Append an event and return its position.

    It happens in the transaction that is open on the connection, or in one of its own if there is none.

    Args:
        conn: asyncpg's connection, or anything with its `fetchval`: `ctx.tx`, a connection of `ctx.db`, `ctx.db`.
        stream: What the event concerns, such as `orders-17`; 1 to 500 characters.
        type: What happened, such as `placed`; 1 to 500 characters.
        data: A JSON object.

    Raises:
        InvalidEvent: It cannot be stored. Nothing was sent, and the transaction can go on.
        asyncpg.PostgresError: The server refused it; the transaction has failed.
    """
    check_name("stream", stream)
    check_name("type", type)
    return await append_text(conn, stream, type, encode(data))


async def append_text(conn: Any, stream: str, type: str, text: str) -> int:  # noqa: A002 - as above
    """Append an event whose data are JSON already, and checked."""
    position: int = await conn.fetchval(_APPEND, stream, type, text)
    return position


def check_name(what: str, name: object) -> None:
    """Check a stream's or a type's name.

    Raises:
        InvalidEvent: The server would refuse it, or could not even be asked.
    """
    if not isinstance(name, str):
        raise InvalidEvent(f"an event's {what} is a str, this is {_kind(name)}")
    if not 1 <= len(name) <= _LONGEST:
        raise InvalidEvent(f"an event's {what} has 1 to {_LONGEST} characters, this one has {len(name)}")
    if (flaw := flaw_of(name, what)) is not None:
        raise InvalidEvent(flaw)


def encode(data: object) -> str:
    """Return an event's data as JSON.

    Raises:
        InvalidEvent: It is no JSON object, or PostgreSQL could not store it; the message says where the fault is.
    """
    if not isinstance(data, dict):
        raise InvalidEvent(f'an event\'s data is a dict, this is {_kind(data)}; wrap it: {{"value": …}}')
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(flaw_of(data, "data") or f"an event's data is no JSON: {error}") from error
    if _SUSPECT.search(text) and (flaw := flaw_of(data, "data")) is not None:
        raise InvalidEvent(flaw)
    return text


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
