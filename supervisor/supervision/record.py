"""What has happened to a worker's instance, for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.escaping import printable
from supervisor.journal.redaction import redact

if TYPE_CHECKING:
    from datetime import datetime

_LONGEST = 300


class Record:
    """Counters and times of an instance; they outlive a restart by an operator and a reload.

    Attributes:
        runs: Runs begun.
        restarts: Restarts after a run that ended by itself.
        failures: Runs that ended with an error of their own.
        last_error: The last one, as a sentence without secrets.
        failed_s: When that was, on the monotonic clock.
        last_began: When a run last began.
        last_ended: When a run last ended.
    """

    __slots__ = ("failed_s", "failures", "last_began", "last_ended", "last_error", "restarts", "runs")

    def __init__(self) -> None:
        self.runs = 0
        self.restarts = 0
        self.failures = 0
        self.last_error: str | None = None
        self.failed_s = float("-inf")
        self.last_began: datetime | None = None
        self.last_ended: datetime | None = None

    def note_failure(self, error: BaseException, *, now_s: float) -> None:
        """Count a failure and keep its sentence; the exception itself would keep its frames alive."""
        self.failures += 1
        self.last_error = sentence_of(error)
        self.failed_s = now_s


def sentence_of(error: BaseException) -> str:
    """Return an error as one short line without secrets, and without what PostgreSQL takes for no text."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    kind = type(error).__qualname__
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a worker's own exception may do anything, even in __str__
        text = "(its message cannot be shown)"
    text = redact(text)
    return _text(f"{kind}: {text}" if text else kind)[:_LONGEST]


def _text(text: str) -> str:
    """Return `text` with control characters and halves of characters escaped."""
    return printable(text).encode("utf-8", "backslashreplace").decode()
