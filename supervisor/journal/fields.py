"""Fields of an entry: any object becomes a plain value at once, in the caller's thread.

A mutable value may change before the writer gets to it. Whatever a value does when it is converted, nothing is raised;
whatever its size, at most `LIMIT` letters of it are kept.
"""

from __future__ import annotations

import re
from functools import lru_cache
from reprlib import Repr
from typing import TypeAlias

Value: TypeAlias = "str | int | float | bool | tuple[Value, ...] | None"

LIMIT = 48 * 1024
# Kept beyond the limit until secrets are replaced, so that a cut never leaves half a secret behind.
OVERLAP = 1024
_MAX_ITEMS = 100
_MAX_FIELDS = 64
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")

_bounded = Repr()
_bounded.maxlevel = 4
_bounded.maxdict = _bounded.maxlist = _bounded.maxtuple = _bounded.maxset = _bounded.maxfrozenset = _MAX_ITEMS
_bounded.maxdeque = _bounded.maxarray = _MAX_ITEMS
_bounded.maxstring = _bounded.maxother = 2000


def safe_fields(fields: dict[str, object]) -> dict[str, Value]:
    """Return fields as plain values under plain names, at most 64 of them."""
    safe: dict[str, Value] = {}
    for name, value in fields.items():
        if len(safe) == _MAX_FIELDS:
            safe["more_fields"] = len(fields) - _MAX_FIELDS
            break
        safe[name if type(name) is str else safe_text(name, 64)] = safe_value(value)
    return safe


@lru_cache(maxsize=1024)
def journald_name(name: str) -> str:
    """Return a name as journald takes it, not yet cut: it silently drops fields with other letters."""
    # Lower first, as JSON writes it: a few letters are ASCII in only one of the two cases.
    return _NOT_IN_NAMES.sub("_", name.lower().upper()).lstrip("_")


def safe_value(value: object, *, depth: int = 0) -> Value:
    """Return a plain value for `value`."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= LIMIT else value[: LIMIT + OVERLAP]  # type: ignore[arg-type,index,return-value]
    if value is None or kind is bool or kind is float:
        return value  # type: ignore[return-value]
    if kind is int:
        # Python refuses to write very long integers out.
        return value if -(1 << 63) <= value < 1 << 64 else hex(value)[:LIMIT]  # type: ignore[operator,arg-type,return-value]
    if (kind is tuple or kind is list) and depth == 0:
        items = tuple(safe_value(item, depth=1) for item in value[:_MAX_ITEMS])  # type: ignore[index]
        return (*items, f"and {len(value) - _MAX_ITEMS} more") if len(value) > _MAX_ITEMS else items  # type: ignore[arg-type]
    return safe_text(value)


def safe_text(value: object, limit: int = LIMIT + OVERLAP) -> str:
    """Return at most `limit` letters that describe any object at all."""
    try:
        # A subclass of str may override its methods.
        text = str.__str__(value) if isinstance(value, str) else _describe(value)
        return str.__str__(text)[:limit]
    except BaseException as exc:  # noqa: BLE001 - no value that is logged may end the worker that logs it
        return f"<{type(value).__name__} that cannot be shown: {type(exc).__name__}>"


def _describe(value: object) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__qualname__}: {value}"
    if isinstance(value, bytes | bytearray | memoryview):
        return repr(bytes(value[: LIMIT // 4]))
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _bounded.repr(value)
    return str(value)
