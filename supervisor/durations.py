"""Durations as people write them: `250ms`, `5s`, `2m`, `1h`."""

from __future__ import annotations

import math
import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# ASCII digits only, and not so many that the float becomes infinite.
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")


def parse_duration(text: str) -> float:
    """Return the seconds that `text` stands for.

    Args:
        text: A number with a unit: `ms`, `s`, `m`, `h` or `d`.

    Raises:
        ValueError: It is no duration; the message says what one looks like.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a duration such as "250ms", "5s", "2m" or "1h", found {text!r}')
    return float(match[1]) * _UNITS_S[match[2]]


def format_duration(duration_s: float) -> str:
    """Return a duration for people: `250ms`, `4.2s`, `2m 5s`, `3h 20m`, `2d 4h`."""
    if not math.isfinite(duration_s):
        return "for ever" if duration_s > 0 else "unknown"
    if duration_s < 0:
        return f"-{format_duration(-duration_s)}"
    if duration_s < 0.9995:
        return f"{duration_s * 1000:.0f}ms"
    if duration_s < 59.95:
        return f"{duration_s:.1f}".removesuffix(".0") + "s"
    seconds = round(duration_s)
    for unit, smaller, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            rest //= {"h": 3600, "m": 60, "s": 1}[smaller]
            return f"{whole}{unit} {rest}{smaller}" if rest else f"{whole}{unit}"
    return f"{seconds}s"
