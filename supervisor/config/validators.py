"""What one value may be.

A validator takes what TOML gave and returns what the model holds, or raises InvalidValue with a
sentence that says what was expected, what was found and, where it helps, what to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from supervisor.durations import format_duration, parse_duration
from supervisor.escaping import printable_line

Validator = Callable[[object], Any]

# Beyond this, timers and the microseconds that systemd counts in would overflow somewhere.
_MAX_DURATION_S = 3650 * 86400.0
_PREVIEW_CHARS = 60
_MAX_STREAM_CHARS = 500
_SECRET = re.compile(r"://|pass(word|wd)?\s*=", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class InvalidValue(ValueError):
    """A value is none of those that its key may have; the message is the sentence about it."""


def non_empty_text(value: object) -> str:
    """Read text that is not empty."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected a text in quotes, {describe_found(value)}")
    if not value.strip():
        raise InvalidValue("expected a text, found an empty one")
    return value


def secret_text(value: object) -> str:
    """Read text that must not be repeated, whatever is wrong with it."""
    if not isinstance(value, str):
        raise InvalidValue("expected a text in quotes")
    return value


def path_text(value: object) -> str:
    """Read the text of a path; what it is relative to is decided elsewhere."""
    path = non_empty_text(value)
    if "\0" in path:
        raise InvalidValue("expected a path, found one with a zero byte in it")
    if path.startswith("~"):
        raise InvalidValue('"~" has no meaning in a configuration file; write the path in full')
    if _SECRET.search(path):
        raise InvalidValue("expected a path, found what looks like a connection string")
    return path


def path_texts(value: object) -> list[str]:
    """Read a list of paths."""
    if not isinstance(value, list):
        raise InvalidValue(f'expected a list of paths such as ["."], {describe_found(value)}')
    return [path_text(element) for element in value]


def globs(value: object) -> tuple[str, ...]:
    """Read a list of globs of streams; one that matches every stream leaves none of them out, so none is needed."""
    if not isinstance(value, list):
        raise InvalidValue(f'expected a list of streams such as ["orders-*"], {describe_found(value)}')
    if not value:
        raise InvalidValue('expected at least one stream, found none; write ["*"] for all of them')
    patterns = [_glob(element) for element in value]
    return () if "*" in patterns else tuple(dict.fromkeys(patterns))


def _glob(value: object) -> str:
    pattern = non_empty_text(value)
    if "\0" in pattern:
        raise InvalidValue("expected a stream's name, found one with a zero byte in it")
    if "[" in pattern:
        raise InvalidValue(
            f'only * and ? stand for something in a stream\'s name, {describe_found(pattern)}; "?" fits a "[" too'
        )
    if len(pattern) > _MAX_STREAM_CHARS:
        raise InvalidValue(f"a stream's name has at most {_MAX_STREAM_CHARS} letters, {describe_found(pattern)}")
    return pattern


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise InvalidValue(f"expected true or false, without quotes, {describe_found(value)}")
    return value


def table(value: object) -> dict[str, Any]:
    """Read a table."""
    if not isinstance(value, dict):
        raise InvalidValue(f"expected a table, {describe_found(value)}")
    return value


def function(value: object) -> str:
    """Read the address of a function: `package.module:function`."""
    address = non_empty_text(value)
    if _FUNCTION.fullmatch(address) is None:
        raise InvalidValue(f'expected "package.module:function", {describe_found(address)}')
    return address


def cron(value: object) -> str:
    """Read a cron expression that the library accepts."""
    expression = non_empty_text(value)
    from datetime import UTC, datetime  # noqa: PLC0415 - as below

    from cronsim import CronSim  # noqa: PLC0415 - most configurations have no cron, and their start need not load it

    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        raise InvalidValue(f"expected a cron expression, {describe_found(value)}, which never comes true") from None
    except Exception as refusal:  # noqa: BLE001 - it raises AssertionError, TypeError and others for odd input
        reason = str(refusal)
        because = f": {reason[0].lower()}{reason[1:]}" if reason else ""
        raise InvalidValue(
            f'expected a cron expression such as "*/5 * * * *", {describe_found(value)}{because}'
        ) from None
    return expression


class Duration:
    """Reads durations in seconds."""

    def __init__(self, *, zero: bool = False) -> None:
        """Accept 0 only if `zero` is set."""
        self.zero = zero

    def __call__(self, value: object) -> float:
        """Read one value."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = _digits(value)
            write = f'; write "{number}s"' if _PLAIN_NUMBER.fullmatch(number) else ""
            raise InvalidValue(f"expected a duration with its unit, {describe_found(value)}{write}")
        if not isinstance(value, str):
            raise InvalidValue(f'expected a duration such as "30s", {describe_found(value)}')
        try:
            duration_s = parse_duration(value)
        except ValueError:
            wanted = 'a duration such as "250ms", "5s", "2m" or "1h"'
            raise InvalidValue(f"expected {wanted}, {describe_found(value)}") from None
        if duration_s > _MAX_DURATION_S:
            raise InvalidValue(f"expected at most {format_duration(_MAX_DURATION_S)}, {describe_found(value)}")
        if not duration_s and not self.zero:
            raise InvalidValue(f"expected a duration above zero, {describe_found(value)}")
        return duration_s


class Integer:
    """Reads whole numbers from `least` to `most`."""

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most

    def __call__(self, value: object) -> int:
        """Read one value."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue(f"expected a whole number, {describe_found(value)}")
        if not self.least <= value <= self.most:
            raise InvalidValue(f"expected a whole number from {self.least} to {self.most}, {describe_found(value)}")
        return value


class Choice:
    """Reads one of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: object) -> str:
        """Read one value."""
        if value not in self.words:
            raise InvalidValue(f"expected {self}, {describe_found(value)}")
        return str(value)

    def __str__(self) -> str:
        return word_list(self.words)


def factor(value: object) -> float:
    """Read what a delay is multiplied by; below 1 it would shrink."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"expected a number such as 2.0, {describe_found(value)}")
    # Written so that nan, which compares false to everything, is refused too.
    if not 1 <= value <= 1000:
        raise InvalidValue(f"expected a number from 1 to 1000, {describe_found(value)}")
    return float(value)


def describe_found(value: object) -> str:
    """Return what was found, without repeating what could be a secret or fill the screen."""
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
    return f'"{printable_line(_shortened(value))}"'


def word_list(words: Sequence[str], conjunction: str = "or") -> str:
    """Return words as `"one", "two" or "three"`."""
    *before, last = map(quoted, words)
    return f"{', '.join(before)} {conjunction} {last}" if before else last


def key_path(*parts: str) -> str:
    """Return the dotted path of a key, as TOML would write it."""
    return ".".join(part if re.fullmatch(r"[\w-]+", part, re.ASCII) else quoted(part) for part in parts)


def _digits(value: float) -> str:
    # Above a few thousand digits Python refuses to write an int in decimal.
    return "that is far too large" if isinstance(value, int) and value.bit_length() > 1000 else str(value)


def _shortened(value: str) -> str:
    return value if len(value) <= _PREVIEW_CHARS else f"{value[:_PREVIEW_CHARS]}…"
