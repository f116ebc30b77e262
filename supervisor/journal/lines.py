"""One JSON object a line, for collectors and pipes."""

from __future__ import annotations

import json
import math
from datetime import UTC
from typing import TYPE_CHECKING

from supervisor.journal.events import LEVEL_NAMES

if TYPE_CHECKING:
    from supervisor.journal.entry import Rendered
    from supervisor.journal.value import Value


def encode_line(entry: Rendered) -> bytes:
    """Return an entry as one line; `ts` is UTC."""
    line = {
        "ts": entry.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": LEVEL_NAMES.get(entry.level, "info"),
        "event": entry.event,
        "message": entry.message,
        **{name.lower(): _plain(value) for name, value in entry.fields.items()},
    }
    # A lone surrogate becomes \udc80, which is exactly how JSON spells it.
    return (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _plain(value: Value) -> Value:
    # JSON has no word for these.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
