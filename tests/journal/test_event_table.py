"""The table of events and its sentences."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisor.journal.events import EVENTS, LEVEL_NAMES
from supervisor.journal.sentence import names_in, render_own, render_sentence

CONTRACT = """daemon.starting daemon.ready daemon.stopping daemon.stopped config.invalid reload.started reload.applied
reload.rejected database.connecting database.connected database.lost database.still_down database.recovered
database.gave_up store.locked store.unlocked worker.started worker.stopped worker.failed worker.restarting
worker.exhausted workers.parked workers.resumed worker.stalled loop.blocked log.repeated notify.failed schema.newer"""

ONE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = st.dictionaries(
    st.sampled_from(sorted({name for kind in EVENTS.values() for name in names_in(kind.sentence)})),
    ONE | st.lists(ONE, max_size=3).map(tuple),
)


def test_every_promised_event_is_there() -> None:
    """The names of the contract are in the table."""
    assert set(CONTRACT.split()) <= EVENTS.keys()


def test_message_ids_are_unique_and_well_formed() -> None:
    """Each event has 128 bits of its own, as journald writes them."""
    ids = [kind.message_id for kind in EVENTS.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", message_id) for message_id in ids)
    assert all(kind.level in LEVEL_NAMES for kind in EVENTS.values())


@given(fields=FIELDS)
def test_a_sentence_renders_with_any_fields(fields: dict[str, Any]) -> None:
    """Missing and odd values never raise."""
    for kind in EVENTS.values():
        assert render_sentence(kind.sentence, fields)


def test_a_sentence_renders_without_fields() -> None:
    """No brace or bracket of the language is left behind when nothing is known."""
    for kind in EVENTS.values():
        assert not set("[]{}|") & set(render_sentence(kind.sentence, {}))


def test_sentences_read_well() -> None:
    """Durations are written out, nouns agree with their number, unknown parts are left out."""
    lost = EVENTS["database.lost"].sentence
    assert render_sentence(lost, {"reason": "refused"}) == "Lost the database: refused."
    parked = EVENTS["workers.parked"].sentence
    assert render_sentence(parked, {"workers": 1}) == "Parked 1 worker until the database is back."
    assert render_sentence(lost, {"error": "gone"}) == "Lost the database: gone."
    down = render_sentence(EVENTS["database.still_down"].sentence, {"down_s": 125.0, "attempts": 9, "reason": "away"})
    assert down == "The database is still away after 2m 5s and 9 attempts: away."
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
    message = render_own("mail sent", {"to": "a b", "n": 3, "empty": "", "long": "x" * 500})
    assert message.startswith("mail sent to='a b' n=3 empty='' long=xxx")
    assert len(message) < 300
