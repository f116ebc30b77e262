"""`log_event` and the journal as a whole."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.entries import Entries

from supervisor.clock import SystemClock
from supervisor.journal import Journal, log_event, open_journal, worker_logger
from supervisor.journal.lines import encode_line
from supervisor.journal.outlet import Outlet, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lines:
    """An open journal that writes JSON lines into a file."""

    def __init__(self, journal: Journal, path: Any) -> None:
        self.journal = journal
        self._path = path

    def read(self) -> list[dict[str, Any]]:
        assert self.journal.flush(5)
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def lines(tmp_path: Any) -> Iterator[Lines]:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    journal = open_journal(level="info", format="json", clock=SystemClock(), environ={})
    journal._writer.outlet = Outlet(encode_line, Stream(descriptor))
    yield Lines(journal, path)
    journal.close(5)
    os.close(descriptor)


def fail(message: str) -> None:
    raise ValueError(message)


def test_an_unknown_event_is_a_fault_of_ours() -> None:
    """An event that the table does not have raises, journal or not."""
    with pytest.raises(KeyError):
        log_event("no.such")


def test_telling_without_a_journal_is_heard_by_observers_alone() -> None:
    """Without an open journal nothing is written and nothing fails."""
    with Entries() as entries:
        log_event("database.lost", reason="gone")
    log_event("database.lost", reason="gone")
    assert entries.events == ["database.lost"]


def test_levels(lines: Lines) -> None:
    """What is below the level is left out; `level` overrides the table, `set_level` changes it at run time."""
    log_event("worker.started", worker="a", level="debug")
    log_event("worker.started", worker="b")
    lines.journal.set_level("debug")
    log_event("worker.started", worker="c", level="debug")
    assert [(line["worker"], line["level"]) for line in lines.read()] == [("b", "info"), ("c", "debug")]


def test_equal_warnings_are_folded_and_different_ones_are_not(lines: Lines) -> None:
    """A flood of one error is one entry; another type, place or worker is shown beside it."""
    for _ in range(50):
        for worker, error in (("a", ValueError("x")), ("a", KeyError("x")), ("b", ValueError("x"))):
            log_event("worker.failed", worker=worker, exc=error)
    shown = [(line["worker"], line["error_type"]) for line in lines.read() if line["event"] == "worker.failed"]
    assert shown == [("a", "ValueError"), ("a", "KeyError"), ("b", "ValueError")]


def test_the_place_tells_errors_apart(lines: Lines) -> None:
    """Two errors of one type from two places are both shown."""
    for raiser in (fail, int):
        try:
            raiser("x")
        except ValueError as exc:
            log_event("worker.failed", worker="a", exc=exc)
    assert len(lines.read()) == 2


@pytest.mark.parametrize(("one", "other"), [(-1, -2), (1, True), (0, 0.0), ("1", 1), ("a", "b"), ((), "()")])
def test_an_info_entry_with_other_values_is_another(lines: Lines, one: object, other: object) -> None:
    """At info only entries with the very same fields are equal."""
    log = worker_logger("mail")
    log.info("sent", n=one)
    log.info("sent", n=other)
    log.info("sent", n=other)
    assert len(lines.read()) == 2


def test_a_change_of_format_takes_effect_at_once(lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    """After `set_format` entries take the new form and place."""
    lines.journal.set_format("json", environ={})
    log_event("daemon.ready", workers=2)
    assert lines.journal.flush(5)
    assert json.loads(capfd.readouterr().err)["message"] == "Ready: 2 workers."


def test_a_failure_brings_its_fields(lines: Lines) -> None:
    """`exc` gives the type, message, place and traceback."""
    try:
        fail("bad\nnews")
    except ValueError as exc:
        log_event("worker.failed", worker="a", exc=exc)
    line = lines.read()[0]
    assert (line["error_type"], line["error"]) == ("ValueError", "bad\nnews")
    assert line["place"].endswith(" fail")
    assert line["traceback"].startswith("Traceback")
    assert "raise ValueError(message)" in line["traceback"]


def test_a_chain_of_thousands_is_bounded(lines: Lines) -> None:
    """An error that drags thousands of others behind itself is told by its own traceback."""
    error: BaseException | None = None
    for number in range(5000):
        following = ValueError(number)
        following.__context__, error = error, following
    log_event("worker.failed", worker="a", exc=error)
    assert len(lines.read()[0]["traceback"]) < 1000


def test_a_deep_recursion_is_bounded(lines: Lines) -> None:
    """A recursion error's traceback keeps its innermost frames alone."""

    def dig() -> None:
        dig()

    try:
        dig()
    except RecursionError as exc:
        log_event("worker.failed", worker="a", exc=exc)
    assert len(lines.read()[0]["traceback"]) < 20_000
