"""The table of events and its sentences."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import supervisor
from supervisor.journal.entry import REPEATED_FIELDS
from supervisor.journal.events import EVENTS, LEVEL_NAMES, EventType
from supervisor.journal.templates import names_in, render_sentence, render_worker_event

CONTRACT = """daemon.starting daemon.ready daemon.stopping daemon.stopped config.invalid reload.started reload.applied
reload.rejected reload.incomplete process.suspended
database.connecting database.connected database.lost database.still_down database.recovered
database.gave_up store.locked store.unlocked worker.started worker.stopped worker.failed worker.restarting
worker.exhausted workers.parked workers.resumed worker.stalled loop.blocked log.repeated notify.failed"""

ONE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = st.dictionaries(
    st.sampled_from(sorted({name for event_type in EVENTS.values() for name in names_in(event_type.sentence)})),
    ONE | st.lists(ONE, max_size=3).map(tuple),
)


def test_every_promised_event_is_there() -> None:
    """The names of the contract are in the table."""
    assert set(CONTRACT.split()) <= EVENTS.keys()


def test_message_ids_are_unique_and_well_formed() -> None:
    """Each event has 128 bits of its own, as journald writes them."""
    ids = [event_type.message_id for event_type in EVENTS.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", message_id) for message_id in ids)
    assert all(event_type.level in LEVEL_NAMES for event_type in EVENTS.values())


@given(fields=FIELDS)
def test_a_sentence_renders_with_any_fields(fields: dict[str, Any]) -> None:
    """Missing and odd values never raise."""
    for event_type in EVENTS.values():
        assert render_sentence(event_type.sentence, fields)


def test_a_sentence_renders_without_fields() -> None:
    """No brace or bracket of the language is left behind when nothing is known."""
    for event_type in EVENTS.values():
        assert not set("[]{}|") & set(render_sentence(event_type.sentence, {}))


def test_sentences_read_well() -> None:
    """Durations are written out, nouns agree with their number, unknown parts are left out."""
    lost = EVENTS["database.lost"].sentence
    assert render_sentence(lost, {"reason": "refused"}) == "Lost the database: refused."
    parked = EVENTS["workers.parked"].sentence
    assert render_sentence(parked, {"workers": 1}) == "1 worker waits for the database."
    assert render_sentence(parked, {"workers": 3, "instances": 4}) == "3 workers (4 instances) wait for the database."
    assert render_sentence(lost, {"error": "gone"}) == "Lost the database: gone."
    down = render_sentence(EVENTS["database.still_down"].sentence, {"down_s": 125.0, "attempts": 9, "reason": "away"})
    assert down == "The database is still unreachable after 2m 5s and 9 attempts: away."
    assert render_sentence(EVENTS["worker.stalled"].sentence, {}) == (
        "Worker unknown took longer than unknown and was cancelled."
    )


def test_a_reason_that_is_a_sentence_ends_with_one_full_stop() -> None:
    """The full stop of a value and that of the sentence are one."""
    stopping = EVENTS["daemon.stopping"].sentence
    assert render_sentence(stopping, {"reason": "It is full."}) == "Stopping: It is full."
    assert render_sentence(stopping, {"reason": "asked by SIGTERM"}) == "Stopping: asked by SIGTERM."
    assert render_sentence("{reason}, at last", {"reason": "It is full."}) == "It is full., at last"


def test_an_own_event_says_its_fields() -> None:
    """A worker's own event reads as its text and its fields, long ones shortened."""
    message = render_worker_event("mail sent", {"to": "a b", "n": 3, "empty": "", "long": "x" * 500})
    assert message.startswith("mail sent to='a b' n=3 empty='' long=xxx")
    assert len(message) < 300


@pytest.mark.parametrize("event_type", EVENTS.values(), ids=lambda event_type: event_type.name)
def test_each_field_of_a_sentence_is_compared_or_varies(event_type: EventType) -> None:
    """A sentence shows only declared fields: those that make entries equal, and those that may vary."""
    declared = event_type.fold_by + event_type.varies
    assert len(set(declared)) == len(declared)
    assert names_in(event_type.sentence) <= set(declared)


@pytest.mark.parametrize("event_type", EVENTS.values(), ids=lambda event_type: event_type.name)
def test_only_times_counts_and_messages_vary(event_type: EventType) -> None:
    """What an entry is about never varies between equal entries, apart from the exceptions listed here."""
    numbers = {name for name in event_type.varies if name.endswith("_s")}
    about = {
        "lease",
        "signal",
        "part",
        "position",
        "shard",
        "instance",
        "node",
        "address",
        "holder_host",
        "path",
        "reason",
        "worker",
    }
    merged = {("worker.restarting", "shard"), ("worker.restarting", "instance"), ("worker.failed", "instance")}
    assert not {(event_type.name, name) for name in about & set(event_type.varies)} - merged
    others = set(event_type.varies) - numbers
    assert others <= {
        "attempts", "count", "dsn", "error", "error_type", "events", "flaps", "instance", "instances", "latest",
        "place", "restarts", "shard", "sqlstate", "stack", "workers",
    }  # fmt: skip


def test_the_report_of_repeats_has_fields_of_its_own() -> None:
    """No field that makes entries equal has the name of a field of log.repeated."""
    for event_type in EVENTS.values():
        assert event_type.name == "log.repeated" or not REPEATED_FIELDS & set(event_type.fold_by)


def test_the_daemon_logs_declared_fields_alone() -> None:
    """Each field that a call of the daemon names is declared in the table, so that folding is a decision."""
    of_exceptions = {"exc", "level", "error", "error_type", "sqlstate", "place"}
    undeclared = []
    for path in Path(supervisor.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="log_event" | "log_event"), args=[ast.Constant(value=str(event))]):
                    declared = {*EVENTS[event].fold_by, *EVENTS[event].varies, *of_exceptions}
                    names = {keyword.arg for keyword in node.keywords if keyword.arg}
                    undeclared += [f"{path.name}:{node.lineno} {event}: {name}" for name in names - declared]
                case _:
                    continue
    assert not undeclared
