"""How a connection string is judged and shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args  # type: ignore[attr-defined]
from hypothesis import assume, example, given
from hypothesis import strategies as st

from supervisor.config.dsn import UNREADABLE, problems_of, redact

SHOWN = [
    ("postgresql:///app", "postgresql:///app"),
    ("postgresql://u@h/app", "postgresql://u@h/app"),
    ("postgres://u:pw@h:5433/app", "postgresql://u@h:5433/app"),
    ("postgresql://u:pw@h1:1,h2:2,[::1]:3/app", "postgresql://u@h1:1,h2:2,[::1]:3/app"),
    ("postgresql://u:p%40w%2F@h/app", "postgresql://u@h/app"),
    ("postgresql://u:pw@%2Frun%2Fpostgresql/app", "postgresql://u@%2Frun%2Fpostgresql/app"),
    (
        "postgresql://u@h/app?sslmode=require&target_session_attrs=read-write&sslkey=/k",
        "postgresql://u@h/app?sslmode=require&target_session_attrs=read-write",
    ),
    ("postgresql://u@h/app?sslmode=require&password=pw", "postgresql://u@h/app"),
    ("postgresql://u@h/app?sslpassword=pw&sslmode=require", "postgresql://u@h/app"),
    ("postgresql://u@h/app?password=p&application_name=w", "postgresql://u@h/app"),
    ("postgresql://u@h/app?pass%77ord=pw&user=x", "postgresql://u@h/app"),
    ("postgresql://u@h/app?options=-c%20my.key%3Dpw", "postgresql://u@h/app"),
    ("postgresql://u:pw@host", "postgresql://u@host/"),
    ("postgresql://u:p/w@h/app", UNREADABLE),
    ("postgresql://u:p?w@h/app", UNREADABLE),
    ("postgresql://u:p#w@h/app", UNREADABLE),
    ("postgresql://u:p@w@h/app", UNREADABLE),
    ("postgresql://u:p w@h/app", UNREADABLE),
    ("postgresql://u:secret", UNREADABLE),
    ("postgresql://u:secret/app", UNREADABLE),
    ("postgresql://u:pw@h:[x/app", UNREADABLE),
    ("host=h password=pw", UNREADABLE),
    ("postgresql+asyncpg://u:pw@h/app", UNREADABLE),
    ("", UNREADABLE),
    ("pw", UNREADABLE),
]


@pytest.mark.parametrize(("dsn", "shown"), SHOWN)
def test_shows_what_is_harmless(dsn: str, shown: str) -> None:
    """User, hosts, database and harmless options are shown; what cannot be told apart is not."""
    assert redact(dsn) == shown


@given(st.text())
@example("p@w")
@example("p/w@")
@example("%")
def test_no_password_changes_what_is_shown(password: str) -> None:
    """An encoded password leaves no trace: the shown form is the same with any other one."""
    assume(not any(0xD800 <= ord(letter) < 0xE000 for letter in password))
    encoded = quote(password, safe="")
    assert redact(f"postgresql://u:{encoded}@h:1,i/app?sslmode=require") == "postgresql://u@h:1,i/app?sslmode=require"
    assert redact(f"postgresql://u@h/app?sslmode=require&password={encoded}") == "postgresql://u@h/app"
    assert redact(f"postgresql://u@h/app?sslpassword={encoded}&sslmode=require") == "postgresql://u@h/app"


@given(st.text(alphabet=st.characters() | st.sampled_from("@/:?#&=%[],+ ")))
@example("a@b/c")
@example("a/b")
@example("1/x")
@example("&application_name=x")
def test_no_raw_password_is_shown(password: str) -> None:
    """A password that nobody encoded is left out as a whole, or nothing is shown at all."""
    assert redact(f"postgresql://u:{password}@h/app") in ("postgresql://u@h/app", UNREADABLE)
    assert redact(f"postgresql://u@h/app?password={password}") in ("postgresql://u@h/app", UNREADABLE)


@given(st.text(min_size=6, alphabet=st.characters() | st.sampled_from("@/:?#&=%[],+ ")))
@example("sslmode=x&1")
def test_no_fault_repeats_the_password(password: str) -> None:
    """Whatever is wrong with a connection string, the sentence about it never holds the password."""
    for dsn in (
        f"postgresql://u:{password}@h/app",
        f"postgresql://u@h/?password={password}",
        f"host=h password={password}",
        password,
    ):
        sentences = problems_of(dsn)
        # The sentences are fixed but for names of options, so compare with those of a harmless text.
        assert not any(password in sentence for sentence in sentences) or any(password in known for known in _KNOWN)


_KNOWN = [
    sentence for dsn in ("", "host=h", "x", "postgresql://u:p/w@h", "postgresql:// ") for sentence in problems_of(dsn)
]


_UNCLEAR = (
    "cannot be told apart into user, password, host, port and database; a port is a number, and the special letters"
    " of the user and the password are percent-encoded: @ is %40, / is %2F, : is %3A, ? is %3F, # is %23, & is %26"
)
PROBLEMS = [
    ("", "is empty"),
    ("  ", "is empty"),
    (
        "host=h user=u password=secret",
        (
            'is in libpq\'s keyword form; write it as a URI: "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",'
            " with the special letters of the password percent-encoded (@ is %40, / is %2F, : is %3A)"
        ),
    ),
    ("postgresql+asyncpg://u:secret@h/app", 'names a Python driver after "+"; write "postgresql://" alone'),
    (
        "mysql://u:secret@h/app",
        (
            'expected "postgresql://USER:PASSWORD@HOST:PORT/DATABASE", "embedded:", "embedded:/path" or "ephemeral:";'
            " found something else (not repeated here, it may hold a secret)"
        ),
    ),
    (
        "postgresql://u:sec ret@h/app",
        "has a blank, a line break or a control character in it; write them percent-encoded (a blank is %20)",
    ),
    (
        "postgresql://u:sec/ret@h/app",
        _UNCLEAR,
    ),
    ("postgresql://h:0/app", "has a port that is no number from 1 to 65535"),
    ("postgresql://h:65536/app", "has a port that is no number from 1 to 65535"),
    ("postgresql://h:/app", _UNCLEAR),
    ("postgresql:///app?port=x", "has a port that is no number from 1 to 65535"),
    ("postgresql:///app?host=h:x", "has a port that is no number from 1 to 65535"),
    ("postgresql://:5432/app", "has a port and no host before it"),
    ("postgresql://a,,b/app", "has an empty host"),
    ("postgresql:///app?host=a,", "has an empty host"),
    ("postgresql://a,b,c/app?port=1,2", "has another number of ports than of hosts"),
    (
        "postgresql://h/app?sslmode=on",
        (
            'has an option "sslmode" whose value is none of'
            ' "disable", "allow", "prefer", "require", "verify-ca", "verify-full"'
        ),
    ),
    (
        "postgresql://h/app?target_session_attrs=rw",
        (
            'has an option "target_session_attrs" whose value is none of'
            ' "any", "primary", "standby", "prefer-standby", "read-write", "read-only"'
        ),
    ),
    (
        "postgresql://h/app?connect_timeout=5",
        (
            'has the option "connect_timeout", which only libpq knows and not the driver: leave it out;'
            " database.connect_timeout is the key for it"
        ),
    ),
    (
        "postgresql://h/app?channel_binding=require",
        'has the option "channel_binding", which only libpq knows and not the driver: leave it out',
    ),
]


@pytest.mark.parametrize(("dsn", "problem"), PROBLEMS)
def test_says_what_is_wrong_without_connecting(dsn: str, problem: str) -> None:
    """What can be judged without a server is judged, in a sentence that says what to write."""
    assert problems_of(dsn) == [problem]


_HOSTS = st.sampled_from(["h", "h:1", "[::1]:2", "[::1", "", ":5", "h:0", "%2Frun", "h:x", "1.2.3.4", "[x]"])
_OPTIONS = st.sampled_from(
    [
        "sslmode=require",
        "sslmode=",
        "x",
        "port=1",
        "port=1,2",
        "host=a,b",
        "host=",
        "host=,",
        "application_name=a",
        "a=1",
    ]
)


@given(
    hosts=st.lists(_HOSTS, max_size=3),
    options=st.lists(_OPTIONS, max_size=3),
    user=st.sampled_from(["", "u@", "u:p@", ":p@", "@", "u:p%@"]),
)
def test_the_driver_takes_what_is_accepted(hosts: list[str], options: list[str], user: str) -> None:
    """A connection string without a problem is one that the driver can read."""
    dsn = f"postgresql://{user}{','.join(hosts)}/app" + (f"?{'&'.join(options)}" if options else "")
    if problems_of(dsn):
        return
    nothing = dict.fromkeys(
        (
            "host",
            "port",
            "user",
            "password",
            "passfile",
            "database",
            "ssl",
            "service",
            "servicefile",
            "direct_tls",
            "server_settings",
            "target_session_attrs",
            "krbsrvname",
            "gsslib",
        )
    )
    assert _parse_connect_dsn_and_args(dsn=dsn, **nothing)
