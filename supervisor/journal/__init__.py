"""The journal: events of the daemon and its workers, in which form and how often; logging never waits.

The way of an entry:

    log_event, a worker's logger (worker_log), Python's logging (stdlib_logging)
      → plain values (fields, exceptions) → level → folding (dedup, pure) → a bounded queue (writer)
    ‖ one thread (writer)
      → sentence (events, templates) → without secrets (redaction) → one form and target (sinks, journald)

Above ‖ is the caller's thread, a few microseconds; below is everything that may block: journald, a terminal, a disk.

Nothing is lost silently: `log.repeated` counts the entries that were left out as equal and says what they have in
common, `log.dropped` counts those that did not fit or could not be written.

`events.py` is the one source of the events; `explanations.py` has what `journalctl -x` says of them. The systemd
catalog and docs/reference/journal.md are made from both.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from supervisor.journal.journal import Journal, flush_journal, install_journal, log_event, observe
from supervisor.journal.redaction import register_secret
from supervisor.journal.sinks import choose_sink, reserve_standard_fds
from supervisor.journal.stdlib_logging import (
    capture_logging,
    current_worker,
    journal_asyncio_exception,
    restore_logging,
    set_root_level,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.clock import Clock
    from supervisor.journal.worker_log import WorkerLogger

__all__ = [
    "Journal",
    "configure_structlog",
    "current_worker",
    "flush_journal",
    "journal_asyncio_exception",
    "log_event",
    "observe",
    "open_journal",
    "register_secret",
    "worker_logger",
]


def open_journal(*, level: str, format: str, clock: Clock, environ: Mapping[str, str] | None = None) -> Journal:  # noqa: A002 - the configuration's word
    """Open the journal of the process; Python's own logging, warnings and uncaught exceptions go the same way.

    Args:
        level: The lowest level that is written.
        format: `auto`, `journal`, `terminal` or `json`.
        clock: Time.
        environ: Instead of the process's own.
    """
    reserve_standard_fds()
    sink = choose_sink(format, os.environ if environ is None else environ)
    journal = Journal(sink, level=level, clock=clock, on_level=set_root_level, on_close=restore_logging)
    install_journal(journal)
    capture_logging(journal.threshold)
    return journal


def worker_logger(worker: str) -> WorkerLogger:
    """Return a structlog logger bound to a worker; the first call imports structlog, the others cost a microsecond."""
    from supervisor.journal import worker_log  # noqa: PLC0415 - structlog takes longer to import than the whole journal

    return worker_log.worker_logger(worker)


def configure_structlog() -> None:
    """Send what users log through `structlog.get_logger()` the same way; only worth it once structlog is imported."""
    from supervisor.journal import worker_log  # noqa: PLC0415 - as above

    worker_log.configure_structlog()
