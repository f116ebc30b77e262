"""The hosts of a connection string, each to be tried with a deadline of its own.

asyncpg lets several hosts share one deadline, so a hung first host uses up the time of the second
(asyncpg #1155, #1309). The hosts are therefore taken apart here and handed over one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 5432
# What asyncpg tries when no host is given at all.
_DEFAULT_HOSTS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")  # noqa: S108 - libpq's own default


class Endpoint(NamedTuple):
    """One host of a connection string.

    Attributes:
        host: A name, an address or a socket folder; None: the driver decides.
        port: The port; None: the driver decides.
        probes: The addresses to look at when asking whether anything listens.
        service: The entry of libpq's service file that alone knows the host; then there are no probes.
    """

    host: str | None
    port: int | None
    probes: tuple[tuple[str, int], ...]
    service: str | None = None

    @property
    def address(self) -> str:
        """The host as people write it."""
        if self.service is not None:
            return f"service {self.service}"
        host, port = self.probes[-1] if self.host is None else self.probes[0]
        if host.startswith("/"):
            return host if ".s.PGSQL." in host else f"{host}/.s.PGSQL.{port}"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_socket(self) -> bool:
        """Whether it is, or may be, a unix socket."""
        return self.host is None or self.host.startswith("/")


class ConnectTargets(NamedTuple):
    """What the monitor has to know of a connection string.

    Attributes:
        endpoints: Its hosts, in order, at least one.
        wanted: `target_session_attrs`.
        application_name: The one it asks for, if any.
    """

    endpoints: tuple[Endpoint, ...]
    target_session_attrs: str
    application_name: str | None

    @property
    def wants_primary(self) -> bool:
        """Whether a read-only server is of no use."""
        return self.target_session_attrs in ("primary", "read-write")


def parse_targets(dsn: str, environ: Mapping[str, str]) -> ConnectTargets:
    """Take a connection string apart.

    Args:
        dsn: `postgresql://…`, or empty for libpq's variables alone.
        environ: The environment, for PGHOST, PGPORT, PGSERVICE and PGTARGETSESSIONATTRS.
    """
    parts = urlsplit(dsn)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    hosts = _netloc_hosts(parts.netloc.rpartition("@")[2])
    if not hosts and "host" in query:
        hosts = _split_hosts(query["host"], query.get("port") or environ.get("PGPORT"))
    service = query.get("service") or environ.get("PGSERVICE")
    if not hosts and not service and environ.get("PGHOST"):
        hosts = _split_hosts(environ["PGHOST"], query.get("port") or environ.get("PGPORT"))
    wanted = query.get("target_session_attrs") or environ.get("PGTARGETSESSIONATTRS") or "any"
    port = _first_port(query.get("port") or environ.get("PGPORT"))
    endpoints = tuple(Endpoint(host, at or port, ((host, at or port),)) for host, at in hosts)
    probes = () if service else tuple((host, port) for host in _DEFAULT_HOSTS)
    left_to_driver = Endpoint(None, None, probes, service)
    return ConnectTargets(endpoints or (left_to_driver,), wanted, query.get("application_name"))


def secrets_of(dsn: str, environ: Mapping[str, str]) -> set[str]:
    """Return the passwords of a connection string and its environment, for the journal to leave out.

    One that is a user's or a database's name too is no secret, and leaving it out would spoil every entry.
    """
    parts = urlsplit(dsn)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    found = {unquote(password), query.get("password", ""), query.get("sslpassword", ""), environ.get("PGPASSWORD", "")}
    return found - {"", unquote(user), unquote(parts.path.lstrip("/"))}


def _netloc_hosts(hostspec: str) -> list[tuple[str, int | None]]:
    hosts: list[tuple[str, int | None]] = []
    for item in filter(None, hostspec.split(",")):
        host, colon, port = item.rpartition(":")
        if not colon or "]" in port:
            host, port = item, ""
        hosts.append((unquote(host).strip("[]"), int(port) if port else None))
    return hosts


def _split_hosts(hosts: str, ports: str | None) -> list[tuple[str, int | None]]:
    given = [int(port) if port else None for port in (ports or "").split(",")]
    named = hosts.split(",")
    if len(given) == 1:
        given *= len(named)
    return list(zip(named, given, strict=False))


def _first_port(ports: str | None) -> int:
    first = (ports or "").split(",")[0]
    return int(first) if first else DEFAULT_PORT
