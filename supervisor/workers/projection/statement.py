"""Whether an SQL text starts with a statement that begins or ends a transaction; pure."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLANK = re.compile(r"(?:\s+|--[^\n]*)+")
_WORD = re.compile(r"[A-Za-z_]+")
_COMMENT_MARK = re.compile(r"/\*|\*/")
_ENDS = {"COMMIT", "END", "ABORT", "ROLLBACK", "BEGIN", "START"}


@lru_cache(maxsize=512)
def transaction_command(sql: str) -> str | None:
    """Return the command with which a text would begin or end a transaction, None if it does not.

    Only its first statement is examined; a later statement, or one in a function, is detected by the commit.
    Savepoints are allowed.
    """
    first, second, third = (*islice(_words(sql), 3), "", "", "")[:3]
    if first == "PREPARE":
        return "PREPARE TRANSACTION" if second == "TRANSACTION" else None
    if first == "ROLLBACK" and "TO" in (second, third):
        return None
    return first if first in _ENDS else None


def _words(sql: str) -> Iterator[str]:
    place = _after_blanks(sql, 0, skipped=";")
    while (word := _WORD.match(sql, place)) is not None:
        yield word[0].upper()
        place = _after_blanks(sql, word.end(), skipped="")


def _after_blanks(sql: str, place: int, *, skipped: str) -> int:
    while place < len(sql):
        if sql[place] in skipped:
            place += 1
        elif (blank := _BLANK.match(sql, place)) is not None:
            place = blank.end()
        elif sql.startswith("/*", place):
            place = _after_comment(sql, place)
        else:
            break
    return place


def _after_comment(sql: str, place: int) -> int:
    """Return the place after a comment; PostgreSQL's are nested."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(sql, place):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)
