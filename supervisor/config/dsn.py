"""What a connection string is, and how it is shown.

Taken apart by hand and more strictly than the driver does: a text whose password cannot be told
apart with certainty is shown as nothing but `postgresql://…`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_plus, urlsplit

from supervisor.config.validators import quoted

UNREADABLE = "postgresql://…"

# Without IGNORECASE, which makes compiling the second of these thirty times dearer, at every start.
_URI = re.compile(r"(?i:postgres(?:ql)?)://(?P<authority>[^/?#]*)(?:/(?P<database>[^?#]*))?(?:\?(?P<query>[^#]*))?")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.%]+\]|[^:@\[\]]*)(?::(?P<port>[^:@\[\]]*))?")
_HARMLESS_TEXT = re.compile(r"[\w.,:/%+*~\[\]-]*", re.ASCII)
_SECRET_OPTION = re.compile(r"pass(?!file)|pwd|token|secret", re.IGNORECASE)
_KEYWORD_FORM = re.compile(r"\b(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*=")

_UNCLEAR = (
    "cannot be told apart into user, password, host, port and database; a port is a number, and the special letters"
    " of the user and the password are percent-encoded: @ is %40, / is %2F, : is %3A, ? is %3F, # is %23, & is %26"
)

# What may be shown of the query; everything else is left out, not masked: a mask says how much there is.
_HARMLESS_OPTIONS = (
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
_OPTIONS_OF_LIBPQ = (
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


class _Parts(NamedTuple):
    user: str
    hosts: list[tuple[str, str | None]]
    database: str
    options: list[tuple[str, str]]


def redact(dsn: str) -> str:
    """Return a connection string without anything that could be secret: user, hosts, database, harmless options."""
    parts = _take_apart(dsn)
    if parts is None:
        return UNREADABLE
    options = "&".join(f"{name}={value}" for name, value in _harmless(parts.options))
    hosts = ",".join(host if port is None else f"{host}:{port}" for host, port in parts.hosts)
    user = f"{parts.user}@" if parts.user else ""
    shown = f"{user}{hosts}/{parts.database}"
    return f"postgresql://{shown}?{options}" if options else f"postgresql://{shown}"


def problems_of(dsn: str) -> list[str]:
    """Return what is wrong with a connection string as far as that shows without connecting; no secrets in it."""
    if (wrong_form := _wrong_form(dsn)) is not None:
        return [wrong_form]
    parts = _take_apart(dsn)
    if parts is None:
        return [_UNCLEAR]
    try:
        urlsplit(dsn)
    except ValueError:
        return ["has a host that is none: an IPv6 address stands in brackets, such as [::1]"]
    return [*_problems_of_hosts(parts), *_problems_of_options(parts)]


def service_of(dsn: str) -> str | None:
    """Return libpq's service that a connection string names, the last one as the driver does; None: none."""
    parts = _take_apart(dsn)
    named = [value for name, value in parts.options if name == "service" and value] if parts else []
    return unquote_plus(named[-1]) if named else None


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


def _take_apart(dsn: str) -> _Parts | None:
    """Return the parts, or None when a password may stand anywhere but before the one `@`."""
    match = _URI.fullmatch(dsn)
    if match is None or not dsn.isprintable() or re.search(r"\s", dsn) or dsn.count("@") > 1:
        return None
    authority, database, query = match["authority"], match["database"] or "", match["query"] or ""
    # An @ behind the authority means that the password had a / or ? in it, or looks exactly as if.
    if "@" in database or "@" in query:
        return None
    credentials, at, hosts_text = authority.rpartition("@")
    user = credentials.partition(":")[0]
    hosts = [_HOST.fullmatch(host) for host in hosts_text.split(",")] if hosts_text else []
    options = [option.partition("=") for option in query.split("&")] if query else []
    if (at and not user and not credentials) or not all(separator for _, separator, _ in options):
        return None
    found = [(host["name"], host["port"]) for host in hosts if host is not None]
    # A port that is no number may be a password whose @HOST was forgotten.
    if len(found) < len(hosts) or not all(port is None or re.fullmatch(r"[0-9]+", port) for _, port in found):
        return None
    return _Parts(user, found, database, [(unquote_plus(name), value) for name, _, value in options])


def _harmless(options: list[tuple[str, str]]) -> list[tuple[str, str]]:
    # A raw & in a secret value would make its rest look like an option of its own: then none is shown.
    if any(_SECRET_OPTION.search(name) for name, _ in options):
        return []
    return [(name, value) for name, value in options if name in _HARMLESS_OPTIONS and _HARMLESS_TEXT.fullmatch(value)]


def _problems_of_hosts(parts: _Parts) -> list[str]:
    problems = []
    options = {name: unquote_plus(value).split(",") for name, value in parts.options if value}
    hosts = [name for name, _ in parts.hosts] or options.get("host", [])
    ports = [port for _, port in parts.hosts if port is not None]
    more_ports = options.get("port", [])
    if hosts == [""] and ports:
        problems.append("has a port and no host before it")
    elif not all(hosts):
        problems.append("has an empty host")
    if len(more_ports) > 1 and len(more_ports) != len(hosts or [""]):
        problems.append("has another number of ports than of hosts")
    if not parts.hosts:
        ports += [port for host in hosts if host[:1] not in ("/", "[") for port in host.split(":")[1:]]
    ports += more_ports
    if not all(re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536 for port in ports):
        problems.append("has a port that is no number from 1 to 65535")
    return problems


def _problems_of_options(parts: _Parts) -> list[str]:
    problems = []
    for name, value in parts.options:
        if name in _OPTIONS_OF_LIBPQ:
            instead = "; database.connect_timeout is the key for it" if name == "connect_timeout" else ""
            problems.append(
                f'has the option "{name}", which only libpq knows and not the driver: leave it out{instead}'
            )
        elif name in _CHOICES and unquote_plus(value) not in _CHOICES[name]:
            words = ", ".join(map(quoted, _CHOICES[name]))
            problems.append(f'has an option "{name}" whose value is none of {words}')
    return problems
