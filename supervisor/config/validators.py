"""What one value may be.

A reader takes what TOML gave and returns what the model holds, or raises WrongValue with a
sentence that says what was expected, what was found and, where it helps, what to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from supervisor.durations import format_duration, parse_duration

Reader = Callable[[object], Any]

# Beyond this, timers and the microseconds that systemd counts in would overflow somewhere.
_LONGEST_S = 3650 * 86400.0
_SHOWN_LETTERS = 60
_LONGEST_STREAM = 500
_SECRET = re.compile(r"://|pass(word|wd)?\s*=", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class WrongValue(ValueError):
    """A value is none of those that its key may have; the message is the sentence about it."""


def text(value: object) -> str:
    """Read text that is not empty."""
    if not isinstance(value, str):
        raise WrongValue(f"expected a text in quotes, {found(value)}")
    if not value.strip():
        raise WrongValue("expected a text, found an empty one")
    return value


def secret_text(value: object) -> str:
    """Read text that must not be repeated, whatever is wrong with it."""
    if not isinstance(value, str):
        raise WrongValue("expected a text in quotes")
    return value


def path_text(value: object) -> str:
    """Read the text of a path; what it is relative to is decided elsewhere."""
    path = text(value)
    if "\0" in path:
        raise WrongValue("expected a path, found one with a zero byte in it")
    if path.startswith("~"):
        raise WrongValue('"~" stands for nothing in a configuration file; write the path in full')
    if _SECRET.search(path):
        raise WrongValue("expected a path, found what looks like a connection string")
    return path


def path_texts(value: object) -> list[str]:
    """Read a list of paths."""
    if not isinstance(value, list):
        raise WrongValue(f'expected a list of paths such as ["."], {found(value)}')
    return [path_text(element) for element in value]


def globs(value: object) -> tuple[str, ...]:
    """Read a list of globs of streams; one that matches every stream leaves none of them out, so none is needed."""
    if not isinstance(value, list):
        raise WrongValue(f'expected a list of streams such as ["orders-*"], {found(value)}')
    if not value:
        raise WrongValue('expected at least one stream, found none; write ["*"] for all of them')
    patterns = [_glob(element) for element in value]
    return () if "*" in patterns else tuple(dict.fromkeys(patterns))


def _glob(value: object) -> str:
    pattern = text(value)
    if "\0" in pattern:
        raise WrongValue("expected a stream's name, found one with a zero byte in it")
    if "[" in pattern:
        raise WrongValue(f'only * and ? stand for something in a stream\'s name, {found(pattern)}; "?" fits a "[" too')
    if len(pattern) > _LONGEST_STREAM:
        raise WrongValue(f"a stream's name has at most {_LONGEST_STREAM} letters, {found(pattern)}")
    return pattern


def truth(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise WrongValue(f"expected true or false, without quotes, {found(value)}")
    return value


def table(value: object) -> dict[str, Any]:
    """Read a table."""
    if not isinstance(value, dict):
        raise WrongValue(f"expected a table, {found(value)}")
    return value


def function(value: object) -> str:
    """Read the address of a function: `package.module:function`."""
    address = text(value)
    if _FUNCTION.fullmatch(address) is None:
        raise WrongValue(f'expected "package.module:function", {found(address)}')
    return address


def cron(value: object) -> str:
    """Read a cron expression that the library accepts."""
    expression = text(value)
    # Only here: most configurations have no cron, and the import is not free at every start.
    from datetime import UTC, datetime  # noqa: PLC0415

    from cronsim import CronSim  # noqa: PLC0415

    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        raise WrongValue(f"expected a cron expression, {found(value)}, which never comes true") from None
    except Exception as refusal:  # noqa: BLE001 - it raises AssertionError, TypeError and others for odd input
        reason = str(refusal)
        because = f": {reason[0].lower()}{reason[1:]}" if reason else ""
        raise WrongValue(f'expected a cron expression such as "*/5 * * * *", {found(value)}{because}') from None
    return expression


def duration(*, zero: bool = False) -> Reader:
    """Return a reader for durations in seconds; `zero` says whether 0 means something."""

    def read(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = _digits(value)
            write = f'; write "{number}s"' if _PLAIN_NUMBER.fullmatch(number) else ""
            raise WrongValue(f"expected a duration with its unit, {found(value)}{write}")
        if not isinstance(value, str):
            raise WrongValue(f'expected a duration such as "30s", {found(value)}')
        try:
            duration_s = parse_duration(value)
        except ValueError:
            wanted = 'a duration such as "250ms", "5s", "2m" or "1h"'
            raise WrongValue(f"expected {wanted}, {found(value)}") from None
        if duration_s > _LONGEST_S:
            raise WrongValue(f"expected at most {format_duration(_LONGEST_S)}, {found(value)}")
        if not duration_s and not zero:
            raise WrongValue(f"expected a duration above zero, {found(value)}")
        return duration_s

    return read


def whole(least: int, most: int) -> Reader:
    """Return a reader for whole numbers from `least` to `most`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongValue(f"expected a whole number, {found(value)}")
        if not least <= value <= most:
            raise WrongValue(f"expected a whole number from {least} to {most}, {found(value)}")
        return value

    return read


def factor(value: object) -> float:
    """Read what a delay is multiplied by; below 1 it would shrink."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongValue(f"expected a number such as 2.0, {found(value)}")
    # Written so that nan, which compares false to everything, is refused too.
    if not 1 <= value <= 1000:
        raise WrongValue(f"expected a number from 1 to 1000, {found(value)}")
    return float(value)


def choice(*words: str) -> Reader:
    """Return a reader for one of a few words."""
    expected = f"{', '.join(map(quoted, words[:-1]))} or {quoted(words[-1])}"

    def read(value: object) -> str:
        if value not in words:
            raise WrongValue(f"expected {expected}, {found(value)}")
        return str(value)

    return read


def found(value: object) -> str:
    """Say what stood there, without repeating what could be a secret or fill the screen."""
    if isinstance(value, str):
        return f"found {quoted(value)}"
    if isinstance(value, bool):
        return f"found {str(value).lower()}"
    if isinstance(value, int | float):
        return f"found the number {_shortened(_digits(value))}"
    if isinstance(value, dict):
        return "found a table"
    return "found a list" if isinstance(value, list) else "found a date or time"


def quoted(value: str) -> str:
    """Return `value` in quotes, printable and short; what may be a connection string is not shown."""
    if _SECRET.search(value):
        return "a text that may hold a secret"
    return f'"{printable(_shortened(value))}"'


def printable(value: str) -> str:
    """Return `value` with every letter that a terminal could choke on, or obey, escaped."""
    if value.isprintable():
        return value
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in value)


def key_path(*parts: str) -> str:
    """Return the dotted path of a key, as TOML would write it."""
    return ".".join(part if re.fullmatch(r"[\w-]+", part, re.ASCII) else quoted(part) for part in parts)


def _digits(value: float) -> str:
    # Above a few thousand digits Python refuses to write an int in decimal.
    return "that is far too large" if isinstance(value, int) and value.bit_length() > 1000 else str(value)


def _shortened(value: str) -> str:
    return value if len(value) <= _SHOWN_LETTERS else f"{value[:_SHOWN_LETTERS]}…"
