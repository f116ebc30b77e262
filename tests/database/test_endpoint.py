"""Where a connection string points."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from supervisor.database.endpoint import Endpoint, parse_targets, secrets_of
from supervisor.database.port_probe import listening_hosts

if TYPE_CHECKING:
    from pathlib import Path


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
    ],
)
def test_the_hosts_of_the_environment(environ: dict[str, str], expected: list[tuple[str, int]]) -> None:
    """A string without a host, or none at all, takes libpq's variables."""
    assert hosts("", **environ) == hosts("postgresql:///app", **environ) == expected


def test_a_host_in_the_string_is_stronger_than_the_environment() -> None:
    """PGPORT still fills in a missing port."""
    assert hosts("postgresql://db/app", PGHOST="other", PGPORT="7") == [("db", 7)]


def test_without_any_host_the_driver_looks_in_its_usual_places() -> None:
    """They are what the cheap check looks at, and people are told the last of them."""
    (endpoint,) = parse_targets("postgresql:///app", {"PGPORT": "7"}).endpoints
    assert (endpoint.host, endpoint.address) == (None, "localhost:7")
    assert ("/run/postgresql", 7) in endpoint.probes


def test_a_service_is_left_to_the_driver() -> None:
    """Nothing is known of its host, so nothing is looked at and none is named."""
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
    route = parse_targets(dsn, environ)
    assert (route.target_session_attrs, route.wants_primary) == (wanted, wants_primary)


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
    """Passwords, also those of the environment, but no word that stands in every entry anyway."""
    dsn = "postgresql://app:p%40ss@db/shop?sslpassword=key"
    assert secrets_of(dsn, {"PGPASSWORD": "other"}) == {"p@ss", "key", "other"}
    assert secrets_of("postgresql://app:app@db/shop", {"PGPASSWORD": "shop"}) == set()


async def test_what_listens_is_found_cheaply(tmp_path: Path) -> None:
    """Ports and unix sockets alike; what refuses or is not there does not listen."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, socket.socket() as deaf:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(str(tmp_path / ".s.PGSQL.5432"))
        unix.listen()
        deaf.bind(("127.0.0.1", 0))  # bound, and refusing
        port, closed = tcp.getsockname()[1], deaf.getsockname()[1]
        route = parse_targets(
            f"postgresql:///app?host=127.0.0.1,127.0.0.1,{tmp_path},{tmp_path}/none&port={port},{closed},5432,5432", {}
        )
        found = await listening_hosts(route.endpoints, limit_s=5.0)
    assert found == {f"127.0.0.1:{port}", f"{tmp_path}/.s.PGSQL.5432"}
