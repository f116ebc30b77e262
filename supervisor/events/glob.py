"""Which streams a projection reads, as PostgreSQL's `LIKE` understands it; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# `*` is any text, also none, and `?` one character; whatever LIKE takes for special stands for itself.
_AS_LIKE = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"})


def like_patterns(globs: Iterable[str]) -> list[str]:
    """Return the patterns of `streams`, of which one has to fit; no glob means every stream."""
    return [glob.translate(_AS_LIKE) for glob in globs] or ["%"]
