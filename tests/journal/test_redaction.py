"""Secrets never reach the journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock

from supervisor.journal import redaction
from supervisor.journal.entry import Entry, render
from supervisor.journal.events import INFO
from supervisor.journal.exceptions import capture_traceback, describe_exception
from supervisor.journal.fields import LIMIT, safe_fields
from supervisor.journal.redaction import redact, register_secret
from supervisor.journal.sinks import encode_json_line

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_secrets_left() -> Iterator[None]:
    before = redaction._known
    yield
    redaction._known = before


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://u:hunter2@h/db", "postgresql://u:***@h/db"),
        ("postgres://u:p@ss@h:1/db?x=1", "postgres://u:***@h:1/db?x=1"),
        ("postgresql://h/db?user=u&password=hunter2&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("host=h password=hunter2 user=u", "host=h password=*** user=u"),
        ("host=h password = 'hun ter\\'2' user=u", "host=h password = '***' user=u"),
        ('{"password": "hunter2", "n": 1}', '{"password": "***", "n": 1}'),
        ("connect(password='hunter2')", "connect(password='***')"),
        ("PASSWORD=hunter2", "PASSWORD=***"),
        ("sslpassword=hunter2", "sslpassword=***"),
        ('password authentication failed for user "u"', 'password authentication failed for user "u"'),
        ("https://example.org/a:b", "https://example.org/a:b"),
    ],
)
def test_passwords_in_connection_strings(text: str, clean: str) -> None:
    """Each spelling of a password in a connection string is replaced, and nothing else."""
    assert redact(text) == clean


@given(secret=st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=4, max_size=30))
def test_known_secrets_in_any_spelling(secret: str) -> None:
    """A registered secret is gone as it is, percent-encoded, quoted and as JSON."""
    register_secret(secret)
    for form in (secret, quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert form not in redact(f"a {form} b {form}")


def test_short_texts_are_no_secrets() -> None:
    """A secret of three letters is not replaced: the holes would log_event it."""
    register_secret("the")
    assert redact("the database") == "the database"


def connect_with(password: str) -> None:
    raise ConnectionError(f"refused for {password}")


def test_no_part_of_an_entry_shows_a_secret() -> None:
    """Message, event, fields, error and traceback are all clean, also where a long value is cut."""
    secret = "correct horse battery staple"
    register_secret(secret)
    try:
        connect_with(secret)
    except ConnectionError as exc:
        fields = safe_fields({
            "dsn": "postgresql://u:hunter22@h/db",
            "items": [secret, "password=hunter22"],
            "long": "x" * (LIMIT - 5) + secret + "y" * LIMIT,
            "longer": (secret + " ") * 3000,
            "cut": "x" * (LIMIT + 1024 - 5) + secret,
            **describe_exception(exc)[0],
        })  # fmt: skip
        entry = Entry(f"sending {secret}", INFO, FakeClock().wall_time(), fields, None, capture_traceback(exc))
    written = encode_json_line(render(entry)).decode()
    assert "horse" not in written
    assert "corre" not in written
    assert "hunter22" not in written
    assert "connect_with" in written
