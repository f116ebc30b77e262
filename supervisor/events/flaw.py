"""What keeps a value from being stored as JSON in PostgreSQL, and where in it that is."""

from __future__ import annotations

import math
import re
from typing import Any

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_DEEPEST = 500
_LONGEST_PATH = 80
_SIMPLE = (str, int, float, bool, type(None))


def flaw_of(value: Any, where: str) -> str | None:
    """Return a sentence about the first fault in `value`, or None.

    Args:
        value: What is to be stored.
        where: What the value is called, such as `data`; the sentence goes on from there: `data.lines[3].price`.
    """
    waiting: list[tuple[Any, str, int]] = [(value, where, 0)]
    while waiting:
        part, path, depth = waiting.pop()
        shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…"
        if depth > _DEEPEST:
            return f"{shown} is nested more than {_DEEPEST} levels deep, or contains itself"
        if (flaw := _own_flaw(part, shown)) is not None:
            return flaw
        waiting.extend((inner, path + step, depth + 1) for inner, step in reversed(_inside(part)))
    return None


def _own_flaw(part: Any, path: str) -> str | None:
    """Return what is wrong with a part, whatever it contains."""
    if isinstance(part, str):
        return f"{path} {problem}" if (problem := _problem_of_text(part)) else None
    if isinstance(part, float) and not math.isfinite(part):
        return f"{path} is {part}, which JSON does not have"
    if isinstance(part, dict):
        return next(filter(None, (_flaw_of_key(key, path) for key in part)), None)
    if isinstance(part, (*_SIMPLE, list, tuple)):
        return None
    return f"{path} is of type {type(part).__name__}, which JSON does not have"


def _flaw_of_key(key: object, path: str) -> str | None:
    if not isinstance(key, _SIMPLE):
        return f"{path} has a key of type {type(key).__name__}, which JSON does not have"
    problem = _problem_of_text(key) if isinstance(key, str) else None
    return f"a key of {path}, {key!a}, {problem}" if problem else None


def _inside(part: Any) -> list[tuple[Any, str]]:
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
    if _HALF_CHARACTER.search(text):
        return "contains half a character (a lone surrogate), which PostgreSQL cannot store"
    return None
