"""What a worker logs: structlog's interface, and nothing that it logs can hurt it."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from support.entries import Entries

from supervisor.journal import configure_structlog, log_event, worker_logger
from supervisor.journal.entry import Entry, render, worker_message_id
from supervisor.journal.events import INFO
from supervisor.journal.fields import LIMIT, OVERLAP, safe_fields
from supervisor.journal.journald import encode_native
from supervisor.journal.sinks import encode_coloured, encode_json_line

if TYPE_CHECKING:
    from collections.abc import Callable


class Hostile:
    """Everything about it fails."""

    def __repr__(self) -> str:
        raise SystemExit("no")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    def __hash__(self) -> int:
        raise ValueError("no")


class OddText(str):
    """A str that lies."""

    __slots__ = ()

    def __str__(self) -> str:
        raise ValueError("no")

    def __len__(self) -> int:
        return 10**9


class OddError(Exception):
    """An exception whose message cannot be formatted."""

    def __str__(self) -> str:
        raise ValueError("no")

    @property
    def sqlstate(self) -> str:
        raise ValueError("no")


def fail(exc: Exception) -> None:
    raise exc


def endless() -> list[Any]:
    """Return a list that holds itself."""
    items: list[Any] = []
    items.append(items)
    return items


HOSTILE = [
    Hostile(), [Hostile()], {"a": Hostile()}, OddText("x"), 10**10_000, -(10**10_000), float("nan"),
    "\ud800 \x00 \n \x1b[2J",
    "x" * 10_000_000, b"\xff" * 10_000_000, ["x" * 1_000_000] * 1000, list(range(1_000_000)), endless(), OddError("x"),
    deque(range(1000)), type, Hostile, {1: 2}, {"deep": [[[[[[[[1]]]]]]]]}, object(), memoryview(b"abc"), None, (), "",
]  # fmt: skip


# By number: pytest shows the arguments of a test that fails, and these do not bear being shown.
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_value_hurts_and_none_is_large(number: int) -> None:
    """Any value is logged without an exception, bounded, in every form."""
    value: Any = HOSTILE[number]
    log = worker_logger("mail")
    with Entries() as entries:
        log.info("sent", value=value)
        log.info(value)
        log.bind(value=value).warning("%s", value)
        log.info("%d %d", value)  # noqa: PLE1206 - wrong on purpose
        log.error("failed", exc_info=value)
    assert len(entries.all) == 5
    for told in entries.all:
        entry = render(Entry(told.event, INFO, FakeClock().wall_time(), told.fields, None))
        assert json.loads(encode_json_line(entry))["worker"] == "mail"
        for encode in (encode_native, encode_coloured):
            assert len(encode(entry)) < 5 * 102 * (LIMIT + OVERLAP)


def test_names_that_an_entry_has_of_its_own() -> None:
    """A worker's fields cannot pretend to be the entry's level, message or worker."""
    with Entries() as entries:
        worker_logger("mail").info("sent", level="x", message="y", worker="z", priority=1, event=2, n=3)
    assert entries.all[0].fields == {
        "level_": "x", "message_": "y", "worker": "mail", "worker_": "z", "priority_": 1, "event_": 2, "n": 3,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["{}", "_{}", "__{}"])
@pytest.mark.parametrize("change", [str.upper, str.capitalize, str.lower])
def test_no_spelling_of_a_name_takes_the_place_of_the_daemons_own(change: Callable[[str], str], form: str) -> None:
    """Journald and JSON fold case and underscores, so a name is compared as they will write it."""
    own = ("message", "priority", "event", "message_id", "syslog_identifier", "level", "ts")
    with Entries() as entries:
        worker_logger("mail").info("sent", **{form.format(change(name)): "forged" for name in (*own, "worker")})
    fields = entries.all[0].fields
    assert fields == {**{f"{name}_": "forged" for name in (*own, "worker")}, "worker": "mail"}
    entry = render(Entry("sent", INFO, FakeClock().wall_time(), fields, None))
    names = [line.partition(b"=")[0] for line in encode_native(entry).splitlines()]
    assert len(names) == len(set(names))
    line = json.loads(encode_json_line(entry))
    assert (line["event"], line["level"], line["worker"]) == ("sent", "info", "mail")
    assert "forged" not in line["message"].partition(" ")[0]


def test_no_spelling_of_a_name_hides_the_error() -> None:
    """Beside an exception its own fields win over a worker's, however these are written."""
    with Entries() as entries:
        worker_logger("mail").error("oh", exc_info=KeyError("k"), ERROR="x", Sqlstate="y", _error_type="z")
    fields = entries.all[0].fields
    assert (fields["error_"], fields["sqlstate_"], fields["error_type_"]) == ("x", "y", "z")
    assert (fields["error"], fields["error_type"]) == ("'k'", "KeyError")
    assert not {"ERROR", "Sqlstate", "_error_type"} & set(fields)


def test_names_of_any_type() -> None:
    """Field names that are no strings, and very many of them, are survived."""
    with Entries() as entries:
        worker_logger("mail").bind(**{"": 1, "é\n": 2, **{f"n{i}": i for i in range(1000)}}).info("x")
    assert len(entries.all[0].fields) <= 65
    assert list(safe_fields({3: 1, None: 2})) == ["3", "None"]  # type: ignore[dict-item] # what the types forbid


def test_the_exception_being_handled() -> None:
    """`exception` logs the one being handled; a broken one is named as such."""
    with Entries() as entries:
        try:
            fail(OddError("x"))
        except OddError:
            worker_logger("mail").exception("oh")
    fields = entries.all[0].fields
    assert fields["error_type"].endswith("OddError")
    assert fields["error"] == "<message that cannot be shown: ValueError>"
    assert fields["place"].endswith(" fail")


def test_the_only_error_of_a_group_is_named() -> None:
    """A group of one is described by its error, not by its being a group."""
    with Entries() as entries:
        log_event("worker.failed", worker="w", exc=ExceptionGroup("unhandled", [ExceptionGroup("in", [KeyError("k")])]))
    assert (entries.all[0].fields["error_type"], entries.all[0].fields["error"]) == ("KeyError", "'k'")


async def test_the_forms_for_coroutines() -> None:
    """`ainfo` and the other coroutines log the same as the functions without an a."""
    log = worker_logger("mail").bind(n=1)
    with Entries() as entries:
        await log.ainfo("a")
        log.log("warning", "b")
        log.log(40, "c")
        log.new(m=1).info("d")
    assert [told.level for told in entries.all] == [20, 30, 40, 20]
    assert entries.all[0].fields == {"n": 1, "worker": "mail"}


def test_what_is_bound_to_the_context_is_said_too() -> None:
    """The context variables are part of an entry."""
    with Entries() as entries, structlog.contextvars.bound_contextvars(request="r1"):
        worker_logger("mail").info("a")
    assert entries.all[0].fields["request"] == "r1"


def test_a_logger_of_the_users_own_goes_the_same_way() -> None:
    """`structlog.get_logger()` logs into the journal."""
    configure_structlog()
    try:
        with Entries() as entries:
            structlog.get_logger("x").bind(a=1).info("own", b=2)
    finally:
        structlog.reset_defaults()
    assert entries.all[0].fields == {"a": 1, "b": 2}


@given(st.text())
def test_the_message_id_of_an_own_event_is_stable(event: str) -> None:
    """The same text has the same id in every process, 128 bits of it."""
    assert len(worker_message_id(event)) == 32
    assert worker_message_id("mail sent") == "1210e8adc63d4c0bf7c7212556a0e20b"
