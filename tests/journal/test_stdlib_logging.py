"""Python's logging, warnings and uncaught exceptions become entries."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING

import pytest
from support.entries import Entries

from supervisor.clock import SystemClock
from supervisor.journal import current_worker, journal_asyncio_exception, open_journal
from supervisor.journal.stdlib_logging import JournalHandler

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def entries() -> Iterator[Entries]:
    """Entries while a journal is open."""
    journal = open_journal(level="debug", format="json", clock=SystemClock(), environ={})
    with Entries() as entries:
        yield entries
    assert journal.close(5)


def test_a_record_becomes_an_entry(entries: Entries) -> None:
    """A library's log call is an entry with its logger, its place and the worker in whose task it happened."""
    token = current_worker.set("mail")
    logging.getLogger("some.library").warning("took %d s", 3)
    current_worker.reset(token)
    told = entries.all[0]
    assert (told.event, told.level, told.fields["logger"], told.fields["text"]) == (
        "library.logged", 30, "some.library", "took 3 s",
    )  # fmt: skip
    assert "test_a_record_becomes_an_entry" in told.fields["place"]
    assert told.fields["worker"] == "mail"


def test_an_exception_comes_along(entries: Entries) -> None:
    """`logger.exception` brings the error."""
    try:
        os.environ["NO_SUCH_VARIABLE"]
    except KeyError:
        logging.getLogger("x").exception("oh")
    assert entries.all[0].fields["error_type"] == "KeyError"


def test_the_pools_noise_is_for_debugging(entries: Entries) -> None:
    """The pool of asyncpg repeats each lost connection: that is at debug."""
    logging.getLogger("asyncpg.pool").warning("retrying")
    assert entries.all[0].level == 10


def test_a_wrong_template_is_shown(entries: Entries) -> None:
    """Wrong arguments for a record's own template neither raise nor lose it."""
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "%d %d", ("one",), None)
    # Not through a logger: pytest's handlers beside ours are less patient.
    JournalHandler().emit(record)
    assert entries.all[0].fields["text"] == "%d %d ('one',)"


def test_warnings_are_entries(entries: Entries) -> None:
    """A warning is an entry of the logger py.warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    logging.captureWarnings(False)
    logging.captureWarnings(True)
    assert entries.all[0].fields["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in entries.all[0].fields["text"]


def test_two_warnings_are_two_entries(entries: Entries) -> None:
    """Warnings are told apart by their own place, so that folding one does not hide the other."""
    for text in ("old", "older"):
        record = logging.LogRecord("py.warnings", logging.WARNING, "warnings.py", 1, f"{text}.py:3: {text}\n", (), None)
        JournalHandler().emit(record)
    assert [told.fields["place"] for told in entries.all] == ["old.py:3: old", "older.py:3: older"]


def test_a_thread_that_dies(entries: Entries) -> None:
    """An exception that ends a thread is an entry that names it."""

    def die() -> None:
        raise ValueError("dead")

    thread = threading.Thread(target=die, name="pool-7")
    thread.start()
    thread.join()
    assert entries.of("library.logged", logger="threading", error="dead")[0].fields["text"].startswith("pool-7")


def test_an_exception_in_a_finalizer(entries: Entries) -> None:
    """An exception that Python cannot raise is an entry."""

    class Odd:
        def __del__(self) -> None:
            raise ValueError("in del")

    Odd()
    gc.collect()
    assert entries.of("library.logged", logger="python", error="in del")


async def test_an_exception_that_the_loop_reports(entries: Entries) -> None:
    """An exception that was never retrieved from a task is an entry with the loop's text."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(journal_asyncio_exception)
    loop.call_exception_handler({"message": "never retrieved", "exception": OSError("x"), "handle": 3})
    told = entries.of("library.logged", logger="asyncio", handle=3)[0]
    assert (told.fields["text"], told.fields["error"], told.level) == ("never retrieved", "x", 40)


def test_the_end_of_the_process_by_an_exception(entries: Entries) -> None:
    """An exception that nobody catches is a bug of the daemon, logged before the end."""
    exc = RuntimeError("bug")
    sys.excepthook(RuntimeError, exc, None)
    assert entries.of("daemon.failed", error="bug")


def test_closing_puts_everything_back() -> None:
    """After the journal is closed Python's own logging and hooks are as before."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    journal = open_journal(level="error", format="json", clock=SystemClock(), environ={})
    assert sys.excepthook is not before[2]
    journal.set_level("info")
    assert root.level == logging.INFO
    assert journal.close(5)
    assert before == (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
