"""Appends an event in the caller's own transaction, after a check that PostgreSQL can store it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from supervisor.errors import InvalidEvent

_MAX_NAME_CHARS = 500
_APPEND = "SELECT supervisor.append($1::text, $2::text, $3::text::jsonb)"
# PostgreSQL's text can store neither lone surrogates nor NUL, which JSON escapes. What looks like an escaped NUL may be
# a backslash of the text itself: a match only means that the value has to be checked.
_SUSPECT = re.compile("[\ud800-\udfff]|\\\\u0000")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DEPTH = 500
_MAX_PATH_CHARS = 80
_SCALARS = (str, int, float, bool, type(None))


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
    if not 1 <= len(name) <= _MAX_NAME_CHARS:
        raise InvalidEvent(f"an event's {what} has 1 to {_MAX_NAME_CHARS} characters, this one has {len(name)}")
    if (problem := json_problem(name, what)) is not None:
        raise InvalidEvent(problem)


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
        raise InvalidEvent(json_problem(data, "data") or f"an event's data is no JSON: {error}") from error
    if _SUSPECT.search(text) and (problem := json_problem(data, "data")) is not None:
        raise InvalidEvent(problem)
    return text


def json_problem(value: Any, where: str) -> str | None:
    """Return a sentence about the first part of `value` that PostgreSQL cannot store as JSON, or None.

    Args:
        value: The value to store.
        where: The name of the value, such as `data`; the sentence appends the path: `data.lines[3].price`.
    """
    waiting: list[tuple[Any, str, int]] = [(value, where, 0)]
    while waiting:
        part, path, depth = waiting.pop()
        shown = path if len(path) <= _MAX_PATH_CHARS else f"{path[:_MAX_PATH_CHARS]}…"
        if depth > _MAX_DEPTH:
            return f"{shown} is nested more than {_MAX_DEPTH} levels deep, or contains itself"
        if (problem := _problem_of_part(part, shown)) is not None:
            return problem
        waiting.extend((inner, path + step, depth + 1) for inner, step in reversed(_children(part)))
    return None


def _problem_of_part(part: Any, path: str) -> str | None:
    """Return what is wrong with a part, whatever it contains."""
    if isinstance(part, str):
        return f"{path} {problem}" if (problem := _problem_of_text(part)) else None
    if isinstance(part, float) and not math.isfinite(part):
        return f"{path} is {part}, which JSON does not have"
    if isinstance(part, dict):
        return next(filter(None, (_problem_of_key(key, path) for key in part)), None)
    if isinstance(part, (*_SCALARS, list, tuple)):
        return None
    return f"{path} is of type {type(part).__name__}, which JSON does not have"


def _problem_of_key(key: object, path: str) -> str | None:
    if not isinstance(key, _SCALARS):
        return f"{path} has a key of type {type(key).__name__}, which JSON does not have"
    problem = _problem_of_text(key) if isinstance(key, str) else None
    return f"a key of {path}, {key!a}, {problem}" if problem else None


def _children(part: Any) -> list[tuple[Any, str]]:
    """Return what a part contains, each with the step that leads there."""
    if isinstance(part, dict):
        return [(inner, _step(key)) for key, inner in part.items()]
    if isinstance(part, (list, tuple)):
        return [(inner, f"[{index}]") for index, inner in enumerate(part)]
    return []


def _step(key: object) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!a}]"


def _problem_of_text(text: str) -> str | None:
    if "\0" in text:
        return "contains the character NUL (\\u0000), which PostgreSQL cannot store"
    if _LONE_SURROGATE.search(text):
        return "contains half a character (a lone surrogate), which PostgreSQL cannot store"
    return None


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
