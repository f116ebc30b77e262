"""`log_event` and the journal as a whole."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.entries import Entries

from supervisor.clock import SystemClock
from supervisor.journal import Journal, log_event, open_journal, worker_logger
from supervisor.journal.events import EVENTS, EventType
from supervisor.journal.sinks import Sink, Stream, encode_json_line

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lines:
    """An open journal that writes JSON lines into a file."""

    def __init__(self, journal: Journal, path: Any) -> None:
        self.journal = journal
        self._path = path

    def read(self) -> list[dict[str, Any]]:
        assert self.journal.flush(5)
        return self.read_closed()

    def read_closed(self) -> list[dict[str, Any]]:
        """Return the lines of a journal that was closed."""
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def lines(tmp_path: Any) -> Iterator[Lines]:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    journal = open_journal(level="info", format="json", clock=SystemClock(), environ={})
    journal._writer.sink = Sink(encode_json_line, Stream(descriptor))
    yield Lines(journal, path)
    journal.close(5)
    os.close(descriptor)


def fail(message: str) -> None:
    raise ValueError(message)


def test_an_unknown_event_raises() -> None:
    """An event that the table does not have raises, journal or not."""
    with pytest.raises(KeyError):
        log_event("no.such")


def test_without_a_journal_only_observers_get_entries() -> None:
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


ALL_EVENTS = [event_type for event_type in EVENTS.values() if event_type.name != "log.dropped"]


@pytest.mark.parametrize("event_type", ALL_EVENTS, ids=lambda event_type: event_type.name)
def test_entries_that_differ_in_a_declared_field_are_both_shown(lines: Lines, event_type: EventType) -> None:
    """For each event: another value of a field in `fold_by` makes another entry, and so does a missing one."""
    known: dict[str, Any] = {name: f"a {name}" for name in event_type.fold_by + event_type.varies}
    entries: list[dict[str, Any]] = [known]
    for name in event_type.fold_by:
        entries += [{**known, name: f"another {name}"}, {key: value for key, value in known.items() if key != name}]
    for fields in entries:
        log_event(event_type.name, level="error", **fields)
    shown = [line for line in lines.read() if line["event"] == event_type.name]
    assert [{name: line[name] for name in known if name in line} for line in shown] == entries


@pytest.mark.parametrize("event_type", ALL_EVENTS, ids=lambda event_type: event_type.name)
def test_entries_that_differ_in_other_fields_are_folded(lines: Lines, event_type: EventType) -> None:
    """For each event: fields outside of `fold_by` make no other entry, and the report names what was repeated."""
    same: dict[str, Any] = {name: f"a {name}" for name in event_type.fold_by}

    def varying(number: int) -> dict[str, Any]:
        return dict.fromkeys(event_type.varies, number)

    for number in range(4):
        log_event(event_type.name, level="error", **same, **varying(number), undeclared=number)
    assert lines.journal.flush(5)
    lines.journal.close(5)
    shown = [line for line in lines.read_closed() if line["event"] == event_type.name and "of_event" not in line]
    if event_type.name == "log.repeated":
        return
    if event_type.never_folded:
        assert len(shown) == 4
        return
    assert len(shown) == 1
    (report,) = [line for line in lines.read_closed() if line["event"] == "log.repeated"]
    assert (report["of_event"], report["count"]) == (event_type.name, 3)
    for name, value in same.items():
        if name != "stack":
            assert report[name] == value
            assert f"{name}='{value}'" in report["message"]
    for name in event_type.varies:
        assert name == "stack" or f"{name}=3" in report["message"]


def test_a_worker_that_fails_quickly_logs_a_handful_of_lines(lines: Lines) -> None:
    """Ten restarts a second are folded, whatever their delay and count; the report shows the last ones."""
    for number in range(30):
        log_event("worker.restarting", worker="mail", delay_s=0.1 * number, restarts=number)
    log_event("worker.restarting", worker="other", delay_s=0.1, restarts=1)
    lines.journal.close(5)
    restarting, other, report = lines.read_closed()
    assert (restarting["worker"], other["worker"], report["event"]) == ("mail", "other", "log.repeated")
    assert report["message"].startswith("worker.restarting (worker=mail) was logged 29 more times in ")
    assert report["message"].endswith("; the last one: delay_s=2.9 restarts=29.")


def test_a_workers_warnings_with_other_fields_are_shown(lines: Lines) -> None:
    """A worker's own warnings are equal only when all of their fields are, as at info."""
    log = worker_logger("mail")
    for order in (1, 2, 2):
        log.warning("order rejected", order=order)
    lines.journal.close(5)
    *shown, report = lines.read_closed()
    assert [line["order"] for line in shown] == [1, 2]
    assert report["message"].startswith("order rejected (worker=mail order=2) was logged 1 more time in ")
    assert report["worker"] == "mail"


def test_a_workers_exceptions_are_folded_by_their_place(lines: Lines) -> None:
    """An exception with another message from the same place is the same failure."""
    log = worker_logger("mail")
    for number in range(3):
        try:
            fail(f"order {number}")
        except ValueError:
            log.exception("rejected")
    assert [line["event"] for line in lines.read()] == ["rejected"]


def test_a_second_caller_of_one_helper_is_shown(lines: Lines) -> None:
    """Two failures through one helper have the same place; both are shown with their tracebacks, in either journal."""

    def orders() -> None:
        fail("no")

    def payments() -> None:
        fail("no")

    log = worker_logger("mail")
    for call in (orders, payments, orders, payments):
        try:
            call()
        except ValueError as exc:
            log_event("worker.failed", worker="mail", exc=exc)
            log.exception("rejected")
    shown = lines.read()
    assert [line["event"] for line in shown] == ["worker.failed", "rejected"] * 2
    assert len({line["place"] for line in shown}) == 1
    assert ["payments" in line["traceback"] for line in shown] == [False, False, True, True]


def test_the_first_messages_of_a_failure_are_shown_each(lines: Lines) -> None:
    """Eight messages of one failure are shown, endlessly many are not, and identifiers make no other message."""
    words = [f"{first}{second}" for first in "abcde" for second in "vwxyz"]
    for number, word in enumerate(words * 2):
        for text in (repr(word), f"order {number} of {number:032x} at 12:{number}"):
            try:
                fail(text)
            except ValueError as exc:
                log_event("worker.failed", worker=text[:1], exc=exc)
    lines.journal.close(5)
    shown = [line["error"] for line in lines.read_closed() if line["event"] == "worker.failed"]
    assert shown == [repr(words[0]), f"order 0 of {0:032x} at 12:0", *map(repr, words[1:8])]
    reports = [line for line in lines.read_closed() if line["event"] == "log.repeated"]
    assert [line["count"] for line in reports] == [42, 49]
    assert "error=\"'ez'\"" in reports[0]["message"]


def test_another_sqlstate_is_another_failure(lines: Lines) -> None:
    """A failure with another SQLSTATE is shown, and the report names it."""
    for sqlstate in ("40001", "40P01", "40001"):
        log_event("worker.failed", worker="a", error_type="E", place="p", sqlstate=sqlstate)
    lines.journal.close(5)
    *shown, report = lines.read_closed()
    assert [line["sqlstate"] for line in shown] == ["40001", "40P01"]
    assert "sqlstate=40001" in report["message"]


@pytest.mark.parametrize("event", ["worker.ended", "worker.exhausted", "worker.abandoned", "worker.stopped"])
def test_the_end_of_each_replica_is_shown(lines: Lines, event: str) -> None:
    """An entry that tells of the end of an instance is not folded with that of another one."""
    for instance in ("rep/1", "rep/2", "rep/3"):
        log_event(event, level="error", worker="rep", instance=instance)
    assert [line["instance"] for line in lines.read()] == ["rep/1", "rep/2", "rep/3"]


def test_a_report_of_repeats_leaves_out_empty_values(lines: Lines) -> None:
    """A field without a value is not named."""
    for _ in range(2):
        log_event("projection.lagging", worker="view", shard=None, events=3)
        worker_logger("mail").info("sent", order=None, to="")
    lines.journal.close(5)
    reports = [line for line in lines.read_closed() if line["event"] == "log.repeated"]
    assert reports[0]["message"].startswith("projection.lagging (worker=view) was logged 1 more time in ")
    assert reports[1]["message"].startswith("sent (worker=mail) was logged 1 more time in ")
    assert "shard" not in reports[0]


def test_a_librarys_messages_are_told_apart(lines: Lines) -> None:
    """Two hosts in a library's warning are two entries, though one line of code logged both."""
    for host in ("a", "b", "b"):
        logging.getLogger("lib").warning("no connection to %s", host)
    assert [line["text"] for line in lines.read()] == ["no connection to a", "no connection to b"]


def test_two_shards_are_told_apart_and_two_replicas_are_not(lines: Lines) -> None:
    """The same failure of two shards is shown twice, that of two replicas once."""
    for shard in ("1of2", "2of2"):
        log_event("worker.failed", worker="view", instance=f"view/{shard}", shard=shard, error_type="E", place="p")
    for replica in ("mail/1", "mail/2"):
        log_event("worker.failed", worker="mail", instance=replica, error_type="E", place="p")
    assert [line["instance"] for line in lines.read()] == ["view/1of2", "view/2of2", "mail/1"]


def test_objects_are_not_told_apart_by_their_address(lines: Lines) -> None:
    """A library's text about two objects, threads or tasks without names is the same text."""
    for number in (1, 2):
        for text in (f"unclosed <socket at 0x7f0{number}>", f"Thread-{number} (run) ended", f"Task-{number} was lost"):
            logging.getLogger("lib").warning("%s", text)
        worker_logger("mail").info("closing", connection=f"<Connection at 0x7f0{number}>")
    assert len(lines.read()) == 4


def test_long_texts_are_compared_in_full(lines: Lines) -> None:
    """Two long texts that differ at their end are two entries."""
    for end in "ab":
        log_event("lease.blocked", reason="x" * 5000 + end)
    assert len(lines.read()) == 2


def test_a_secret_in_a_report_of_repeats_is_replaced(lines: Lines) -> None:
    """What was repeated is named without secrets, long values too."""
    for _ in range(2):
        log_event("lease.blocked", reason="password=geheim " + "x" * 2000)
    lines.journal.close(5)
    assert "geheim" not in json.dumps(lines.read_closed())


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
    """An error that drags thousands of others behind itself is shown with its own traceback."""
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
