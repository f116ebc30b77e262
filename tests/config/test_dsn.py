"""How a connection string is judged and shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args  # type: ignore[attr-defined]
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.libpq import parse_with_libpq

from supervisor.config.dsn import UNREADABLE, Endpoint, parse_targets, problems_of, redact, secrets_of

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
    """A password that is not encoded is left out as a whole, or nothing is shown at all."""
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
@example(hosts=["h", ""], options=["host=a,b"], user="")
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


def hosts(dsn: str, **environ: str) -> list[tuple[str | None, int | None]]:
    return [(endpoint.host, endpoint.port) for endpoint in parse_targets(dsn, environ).endpoints]


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://db.example/app", [("db.example", 5432)]),
        ("postgresql://app:secret@db.example:6000/app", [("db.example", 6000)]),
        ("postgresql://app:p%40ss@a:1,b:2/app", [("a", 1), ("b", 2)]),
        ("postgresql://a,b:2,c/app", [("a", 5432), ("b", 2), ("c", 5432)]),
        ("postgresql://[::1]:5433/app", [("::1", 5433)]),
        ("postgresql://[2001:db8::1],[::1]:7/app", [("2001:db8::1", 5432), ("::1", 7)]),
        ("postgresql:///app?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///app?host=a,b&port=7", [("a", 7), ("b", 7)]),
        ("postgresql://app@/app?host=/run/pg&port=5433", [("/run/pg", 5433)]),
        ("postgresql://%2Frun%2Fpg:5433/app", [("/run/pg", 5433)]),
        ("postgresql://db/app?port=6000", [("db", 6000)]),
        ("postgresql://a,b/app?port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql://a:5/app?port=7", [("a", 7)]),
        ("postgresql://a/app?host=b", [("b", 5432)]),
        ("postgresql:///app?host=a:5433,b", [("a", 5433), ("b", 5432)]),
        ("postgresql:///app?host=[::1]:5433,::1", [("::1", 5433), ("::1", 5432)]),
    ],
)
def test_the_hosts_of_a_connection_string(dsn: str, expected: list[tuple[str, int]]) -> None:
    """Each host of the string is one endpoint, in its order, with its own port."""
    assert hosts(dsn) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PGHOST": "db"}, [("db", 5432)]),
        ({"PGHOST": "a,b", "PGPORT": "1,2"}, [("a", 1), ("b", 2)]),
        ({"PGHOST": "/run/pg", "PGPORT": "5433"}, [("/run/pg", 5433)]),
        ({"PGHOST": "a,b", "PGPORT": "7"}, [("a", 7), ("b", 7)]),
    ],
)
def test_the_hosts_of_the_environment(environ: dict[str, str], expected: list[tuple[str, int]]) -> None:
    """A string without a host, or none at all, takes libpq's variables."""
    assert hosts("", **environ) == hosts("postgresql:///app", **environ) == expected


def test_a_host_in_the_string_is_stronger_than_the_environment() -> None:
    """PGPORT still fills in a missing port."""
    assert hosts("postgresql://db/app", PGHOST="other", PGPORT="7") == [("db", 7)]


def test_without_any_host_the_driver_looks_in_its_usual_places() -> None:
    """The port check probes all of them, and the address for people is the last one."""
    (endpoint,) = parse_targets("postgresql:///app", {"PGPORT": "7"}).endpoints
    assert (endpoint.host, endpoint.address) == (None, "localhost:7")
    assert ("/run/postgresql", 7) in endpoint.probes


def test_a_service_is_left_to_the_driver() -> None:
    """Its host is unknown, so no address is probed and none is named."""
    for dsn, environ in (("postgresql:///app?service=shop", {}), ("", {"PGSERVICE": "shop", "PGHOST": "db"})):
        (endpoint,) = parse_targets(dsn, environ).endpoints
        assert (endpoint.host, endpoint.probes, endpoint.address) == (None, (), "service shop")


@pytest.mark.parametrize(
    ("dsn", "environ", "wanted", "wants_primary"),
    [
        ("postgresql://a/app", {}, "any", False),
        ("postgresql://a/app?target_session_attrs=read-write", {}, "read-write", True),
        ("postgresql://a/app?target_session_attrs=primary", {"PGTARGETSESSIONATTRS": "standby"}, "primary", True),
        ("postgresql://a/app", {"PGTARGETSESSIONATTRS": "prefer-standby"}, "prefer-standby", False),
    ],
)
def test_which_server_is_wanted(dsn: str, environ: dict[str, str], wanted: str, wants_primary: bool) -> None:
    """`target_session_attrs` comes from the string, else from the environment."""
    targets = parse_targets(dsn, environ)
    assert (targets.target_session_attrs, targets.wants_primary) == (wanted, wants_primary)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        (Endpoint("db", 5432, (("db", 5432),)), "db:5432"),
        (Endpoint("::1", 5432, (("::1", 5432),)), "[::1]:5432"),
        (Endpoint("/run/pg", 5433, (("/run/pg", 5433),)), "/run/pg/.s.PGSQL.5433"),
    ],
)
def test_an_address_as_people_write_it(endpoint: Endpoint, address: str) -> None:
    """An IPv6 address has brackets."""
    assert endpoint.address == address


def test_the_secrets_of_a_connection_string() -> None:
    """Passwords, also those of the environment, but no name of a user or database."""
    dsn = "postgresql://app:p%40ss@db/shop?sslpassword=key"
    assert secrets_of(dsn, {"PGPASSWORD": "other"}) == {"p@ss", "key", "other"}
    assert secrets_of("postgresql://app:app@db/shop", {"PGPASSWORD": "shop"}) == set()


def test_each_host_has_its_port_of_the_environment() -> None:
    """A list in PGPORT has one port for each host of the string, as libpq has it."""
    assert hosts("postgresql://a,b/app", PGPORT="1,2") == [("a", 1), ("b", 2)]


_LIBPQ_HOSTS = st.sampled_from(["h", "h:1", "[::1]:2", "[::1]", "%2Frun", "%2Frun:3", "1.2.3.4", "i"])
_LIBPQ_OPTIONS = st.sampled_from(
    [
        "host=a,b",
        "host=c",
        "host=%2Frun%2Fpg",
        "host=::1",
        "host=",
        "port=1",
        "port=1,2",
        "port=4,5,6",
        "application_name=a",
        "application_name=%C3%A4",
        "target_session_attrs=primary",
        "sslmode=require",
    ]
)


@given(
    before_path=st.lists(_LIBPQ_HOSTS, max_size=3),
    options=st.lists(_LIBPQ_OPTIONS, max_size=4),
    user=st.sampled_from(["", "u@", "u:p@", "u:p%40@", "%C3%BC:%2F@"]),
)
@example(before_path=["a", "b"], options=["port=1,2"], user="")
@example(before_path=["h:1"], options=["port=4", "host=c"], user="u@")
def test_what_is_accepted_points_where_libpq_goes(before_path: list[str], options: list[str], user: str) -> None:
    """A string without a problem has the hosts, ports and secrets that libpq itself finds in it."""
    dsn = f"postgresql://{user}{','.join(before_path)}/app" + (f"?{'&'.join(options)}" if options else "")
    assume(not problems_of(dsn))
    found = parse_with_libpq(dsn)
    assert found is not None
    # To libpq an empty option takes back the one before it, to the driver it is not there.
    assume("host=" not in options)
    names = found["host"].split(",") if "host" in found else []
    ports = found["port"].split(",") if found.get("port", "").strip(",") else ["5432"]
    each = ports if len(ports) == len(names) else ports * len(names)
    expected: list[tuple[str | None, int | None]] = [
        (name, int(port or 5432)) for name, port in zip(names, each, strict=True)
    ]
    assert hosts(dsn) == (expected or [(None, None)])
    targets = parse_targets(dsn, {})
    assert targets.application_name == (found.get("application_name") or None)
    assert targets.target_session_attrs == (found.get("target_session_attrs") or "any")
    assert secrets_of(dsn, {}) == ({found["password"]} if found.get("password") else set())


@given(hosts=st.lists(_HOSTS, max_size=3), options=st.lists(_OPTIONS, max_size=3), user=st.sampled_from(["", "u:p@"]))
def test_every_target_can_be_connected_to(hosts: list[str], options: list[str], user: str) -> None:
    """Each host of an accepted string has a name and a port that can be connected to."""
    dsn = f"postgresql://{user}{','.join(hosts)}/app" + (f"?{'&'.join(options)}" if options else "")
    assume(not problems_of(dsn))
    for endpoint in parse_targets(dsn, {}).endpoints:
        assert endpoint.host != ""
        assert endpoint.port is None or 0 < endpoint.port < 65536
        assert redact(dsn) != UNREADABLE
