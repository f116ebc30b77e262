"""The journal: what the daemon says, how often, in which form, and never at the price of waiting.

The way of an entry:

    tell, a worker's logger, Python's logging
      → plain values (value, failure) → level → folding (pure) → a bounded queue (buffer)
    ‖ one thread (writer)
      → sentence (events, sentence) → without secrets (redaction) → one form and place (outlet: native, terminal, lines)

Above ‖ is the caller's thread, a few microseconds; below is all that may block: journald, a terminal, a disk.

Nothing is lost silently: what is left out as equal is told by `log.repeated`, what did not fit or could not be
written by `log.dropped`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.journal.journal import Journal, flush_journal, log_event, observe, open_journal
from supervisor.journal.library import current_worker, journal_asyncio_exception
from supervisor.journal.redaction import register_secret

if TYPE_CHECKING:
    from supervisor.journal.worker_log import WorkerLogger

__all__ = [
    "Journal",
    "adopt_structlog",
    "current_worker",
    "flush_journal",
    "journal_asyncio_exception",
    "log_event",
    "observe",
    "open_journal",
    "register_secret",
    "worker_logger",
]


def worker_logger(worker: str) -> WorkerLogger:
    """Return a structlog logger bound to a worker; the first call imports structlog, the others cost a microsecond."""
    from supervisor.journal import worker_log  # noqa: PLC0415 - structlog takes longer to import than the whole journal

    return worker_log.worker_logger(worker)


def adopt_structlog() -> None:
    """Send what users say through `structlog.get_logger()` the same way; only worth it once structlog is imported."""
    from supervisor.journal import worker_log  # noqa: PLC0415 - as above

    worker_log.adopt_structlog()
