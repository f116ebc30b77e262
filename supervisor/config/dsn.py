"""The one parser of connection strings: how one is shown, what is wrong with it, and where it points.

Taken apart by hand and more strictly than the driver does: a text whose password cannot be told
apart with certainty is shown as nothing but `postgresql://…`, and is not connected to either.

asyncpg lets several hosts share one deadline, so a hung first host uses up the time of the second
(asyncpg #1155, #1309). The hosts are therefore taken apart here and handed over one at a time. Where asyncpg
differs from libpq, libpq's rule holds: `host` and `port` in the query count before those in front of the path, and a
list of ports, also in PGPORT, has one for each host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit

from supervisor.config.validators import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNREADABLE = "postgresql://…"

# Without IGNORECASE, which makes compiling the second of these thirty times dearer, at every start.
_URI = re.compile(r"(?i:postgres(?:ql)?)://(?P<authority>[^/?#]*)(?:/(?P<database>[^?#]*))?(?:\?(?P<query>[^#]*))?")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.%]+\]|[^:@\[\]]*)(?::(?P<port>[^:@\[\]]*))?")
_ADDRESS = re.compile(r"[0-9a-fA-F:.%]+")
_DIGITS = re.compile(r"[0-9]+")
_SHOWABLE_TEXT = re.compile(r"[\w.,:/%+*~\[\]-]*", re.ASCII)
_SECRET_OPTION = re.compile(r"pass(?!file)|pwd|token|secret", re.IGNORECASE)
_KEYWORD_FORM = re.compile(r"\b(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*=")

_NO_ADDRESS = "has a host that is none: an IPv6 address stands in brackets, such as [::1]"
_UNCLEAR = (
    "cannot be told apart into user, password, host, port and database; a port is a number, and the special letters"
    " of the user and the password are percent-encoded: @ is %40, / is %2F, : is %3A, ? is %3F, # is %23, & is %26"
)

# What may be shown of the query; everything else is left out, not masked: a mask says how much there is.
_SHOWABLE_OPTIONS = (
    "host",
    "port",
    "dbname",
    "database",
    "user",
    "service",
    "sslmode",
    "target_session_attrs",
    "application_name",
)
_CHOICES = {
    "target_session_attrs": ("any", "primary", "standby", "prefer-standby", "read-write", "read-only"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
}
# asyncpg sends what it does not know to the server as a setting, and the server refuses these.
_LIBPQ_OPTIONS = (
    "channel_binding",
    "connect_timeout",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "require_auth",
    "requirepeer",
    "requiressl",
    "sslcertmode",
    "sslcompression",
    "sslcrldir",
    "sslsni",
)
_DEFAULT_PORT = 5432
# What asyncpg tries when no host is given at all.
_DEFAULT_HOSTS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")  # noqa: S108 - libpq's own default


class _Host(NamedTuple):
    """A host as it is written, without its brackets; the port is digits."""

    name: str
    port: str | None
    in_brackets: bool

    def __str__(self) -> str:
        name = f"[{self.name}]" if self.in_brackets else self.name
        return name if self.port is None else f"{name}:{self.port}"


class _Parts(NamedTuple):
    """A connection string taken apart; everything but the names of the options is percent-encoded as it was."""

    user: str = ""
    password: str = ""
    authority: tuple[_Host, ...] = ()
    database: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def option(self, name: str) -> str | None:
        """Return the value of an option, the last one as the driver does; None: absent or empty."""
        values = [unquote_plus(value) for known, value in self.options if known == name and value]
        return values[-1] if values else None


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
    """All that connecting has to know of a connection string.

    Attributes:
        endpoints: Its hosts, in order, at least one.
        target_session_attrs: Which servers will do.
        application_name: The one it asks for, if any.
    """

    endpoints: tuple[Endpoint, ...]
    target_session_attrs: str
    application_name: str | None

    @property
    def wants_primary(self) -> bool:
        """Whether a read-only server is of no use."""
        return self.target_session_attrs in ("primary", "read-write")


def redact(dsn: str) -> str:
    """Return a connection string without anything that could be secret: user, hosts, database, harmless options."""
    parts = _parse(dsn)
    if parts is None:
        return UNREADABLE
    options = "&".join(f"{name}={value}" for name, value in _harmless(parts.options))
    hosts = ",".join(map(str, parts.authority))
    user = f"{parts.user}@" if parts.user else ""
    shown = f"{user}{hosts}/{parts.database}"
    return f"postgresql://{shown}?{options}" if options else f"postgresql://{shown}"


def problems_of(dsn: str) -> list[str]:
    """Return what is wrong with a connection string as far as that shows without connecting; no secrets in it."""
    if (wrong_form := _wrong_form(dsn)) is not None:
        return [wrong_form]
    parts = _parse(dsn)
    if parts is None:
        return [_UNCLEAR]
    try:
        urlsplit(dsn)
    except ValueError:
        return [_NO_ADDRESS]
    return [*_problems_of_hosts(parts), *_problems_of_options(parts)]


def service_of(dsn: str) -> str | None:
    """Return libpq's service that a connection string names, the last one as the driver does; None: none."""
    parts = _parse(dsn)
    return parts.option("service") if parts else None


def parse_targets(dsn: str, environ: Mapping[str, str]) -> ConnectTargets:
    """Return where a connection string points.

    Args:
        dsn: `postgresql://…` without a problem, or empty for libpq's variables alone.
        environ: The environment, for PGHOST, PGPORT, PGSERVICE and PGTARGETSESSIONATTRS.
    """
    parts = _parse(dsn) or _Parts()
    service = parts.option("service") or environ.get("PGSERVICE")
    hosts = _hosts(parts, "" if service else environ.get("PGHOST", ""))
    ports = [int(port or _DEFAULT_PORT) for port in _ports(parts) or environ.get("PGPORT", "").split(",")]
    # One port is for all hosts; a list has one for each.
    each = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    located = [(name, int(own or port)) for (name, own), port in zip(hosts, each, strict=True)]
    endpoints = tuple(Endpoint(name, port, ((name, port),)) for name, port in located)
    probes = () if service else tuple((host, ports[0]) for host in _DEFAULT_HOSTS)
    left_to_driver = Endpoint(None, None, probes, service)
    wanted = parts.option("target_session_attrs") or environ.get("PGTARGETSESSIONATTRS") or "any"
    return ConnectTargets(endpoints or (left_to_driver,), wanted, parts.option("application_name"))


def secrets_of(dsn: str, environ: Mapping[str, str]) -> set[str]:
    """Return the passwords of a connection string and its environment, for the journal to leave out.

    One that is a user's or a database's name too is no secret, and leaving it out would spoil every entry.
    """
    parts = _parse(dsn) or _Parts()
    options = (parts.option("password"), parts.option("sslpassword"))
    found = {unquote(parts.password), *options, environ.get("PGPASSWORD")}
    return {secret for secret in found if secret} - {unquote(parts.user), unquote(parts.database)}


def _wrong_form(dsn: str) -> str | None:
    if not dsn.strip():
        return "is empty"
    if re.match(r"postgres(?:ql)?://", dsn, re.IGNORECASE):
        if re.search(r"\s", dsn) or not dsn.isprintable():
            return "has a blank, a line break or a control character in it; write them percent-encoded (a blank is %20)"
        return None
    if re.match(r"postgres(?:ql)?\+\w+://", dsn, re.IGNORECASE):
        return 'names a Python driver after "+"; write "postgresql://" alone'
    if "://" not in dsn and _KEYWORD_FORM.search(dsn):
        return (
            'is in libpq\'s keyword form; write it as a URI: "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",'
            " with the special letters of the password percent-encoded (@ is %40, / is %2F, : is %3A)"
        )
    return (
        'expected "postgresql://USER:PASSWORD@HOST:PORT/DATABASE", "embedded:", "embedded:/path" or "ephemeral:";'
        " found something else (not repeated here, it may hold a secret)"
    )


def _parse(dsn: str) -> _Parts | None:
    """Return the parts, or None when a password may stand anywhere but before the one `@`."""
    match = _URI.fullmatch(dsn)
    if match is None or not dsn.isprintable() or re.search(r"\s", dsn) or dsn.count("@") > 1:
        return None
    authority, database, query = match["authority"], match["database"] or "", match["query"] or ""
    # An @ behind the authority means that the password had a / or ? in it, or looks exactly as if.
    if "@" in database or "@" in query:
        return None
    credentials, at, hosts_text = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts = [_parse_host(host) for host in hosts_text.split(",")] if hosts_text else []
    options = [option.partition("=") for option in query.split("&")] if query else []
    if (at and not user and not credentials) or not all(separator for _, separator, _ in options):
        return None
    found = tuple(host for host in hosts if host is not None)
    # A port that is no number may be a password whose @HOST was forgotten.
    if len(found) < len(hosts) or not all(host.port is None or _DIGITS.fullmatch(host.port) for host in found):
        return None
    return _Parts(user, password, found, database, tuple((unquote_plus(name), value) for name, _, value in options))


def _parse_host(text: str) -> _Host | None:
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    name = match["name"]
    return _Host(name.strip("[]"), match["port"], in_brackets=name.startswith("["))


def _hosts(parts: _Parts, environment: str = "") -> list[tuple[str, str | None]]:
    """Return hosts: the option `host`, else those before the path, else the environment's; the lists have own ports."""
    listed = parts.option("host")
    if listed is None and parts.authority:
        return [(unquote(host.name), None) for host in parts.authority]
    listed = listed or environment
    return [_listed_host(text) for text in listed.split(",")] if listed else []


def _ports(parts: _Parts) -> list[str]:
    """Return the ports, one for all hosts or one for each: the option `port`, else those before the path; or none."""
    listed = parts.option("port")
    if listed is not None:
        return listed.split(",")
    return [host.port or "" for host in parts.authority] if any(host.port for host in parts.authority) else []


def _listed_host(text: str) -> tuple[str, str | None]:
    """Return a host of a list: unlike one before the path it may be a socket folder or an address without brackets."""
    if text.startswith("/") or (text.count(":") > 1 and _ADDRESS.fullmatch(text)):
        return text, None
    if (host := _parse_host(text)) is not None:
        return host.name, host.port
    name, _, port = text.partition(":")
    return name, port or None


def _harmless(options: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    # A raw & in a secret value would make its rest look like an option of its own: then none is shown.
    if any(_SECRET_OPTION.search(name) for name, _ in options):
        return []
    return [(name, value) for name, value in options if name in _SHOWABLE_OPTIONS and _SHOWABLE_TEXT.fullmatch(value)]


def _problems_of_hosts(parts: _Parts) -> list[str]:
    problems = []
    hosts, ports = _hosts(parts), _ports(parts)
    names = [name for name, _ in hosts]
    if names == [""] and ports:
        problems.append("has a port and no host before it")
    elif not all((*names, *(host.name for host in parts.authority))):
        problems.append("has an empty host")
    if any("[" in name or "]" in name for name in names):
        problems.append(_NO_ADDRESS)
    if len(ports) > 1 and len(ports) != len(names or [""]):
        problems.append("has another number of ports than of hosts")
    written = [*(port for port in ports if port or parts.option("port")), *(own for _, own in hosts if own)]
    if not all(re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536 for port in written):
        problems.append("has a port that is no number from 1 to 65535")
    return problems


def _problems_of_options(parts: _Parts) -> list[str]:
    problems = []
    for name, value in parts.options:
        if name in _LIBPQ_OPTIONS:
            instead = "; database.connect_timeout is the key for it" if name == "connect_timeout" else ""
            problems.append(
                f'has the option "{name}", which only libpq knows and not the driver: leave it out{instead}'
            )
        elif name in _CHOICES and unquote_plus(value) not in _CHOICES[name]:
            words = ", ".join(map(quoted, _CHOICES[name]))
            problems.append(f'has an option "{name}" whose value is none of {words}')
    return problems
