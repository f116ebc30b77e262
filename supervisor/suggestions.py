"""The known name that a misspelt one most likely means."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, normalise: bool = True) -> str | None:
    """Return the known name most like `name`, if one is.

    Args:
        name: What was written.
        known: What exists.
        normalise: Whether case and `-` for `_` count as no difference, as in keys.
    """
    # Only when something is wrong: a correct configuration does not pay for it.
    from difflib import get_close_matches  # noqa: PLC0415

    # No typo is longer, and the comparison grows with the square of the length.
    short = name[:100]
    near = get_close_matches(short.lower().replace("-", "_") if normalise else short, list(known), n=1, cutoff=0.6)
    return near[0] if near else None
