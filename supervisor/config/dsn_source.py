"""Where the connection string comes from: environment, file, credential, libpq's own variables.

libpq's service file is checked here, before the driver reads it: the driver takes no notice of a service that is not
defined, and connects elsewhere: to the local socket, or to the database that other variables name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from supervisor.config.dsn import problems_of, redact, service_of
from supervisor.config.model import Dsn, EmbeddedStore, Server
from supervisor.config.paths import absolute
from supervisor.config.table_reader import read_error_text, read_text
from supervisor.config.validators import quoted
from supervisor.escaping import printable_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.config.table_reader import FaultCollector

_DSN = ("database", "dsn")
_DSN_FILE = ("database", "dsn_file")
_MAX_BYTES = 64 * 1024
_LIBPQ_VARIABLES = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGPASSFILE", "PGSERVICE")
_NO_DSN = (
    'there is no dsn; write dsn = "postgresql://…" or dsn_file = "…" in [database], set'
    " PGSUPERVISOR__DATABASE__DSN, hand over a systemd credential named dsn, or set libpq's PGHOST, PGUSER, PGDATABASE;"
    ' "embedded:" is a PostgreSQL of the daemon\'s own'
)


def read_target(
    given: dict[str, Any], base: Path, environ: Mapping[str, str], faults: FaultCollector
) -> Server | EmbeddedStore | None:
    """Return the database that is meant, or None with a fault.

    Args:
        given: The fields of `[database]`; `dsn` and `dsn_file` are taken out.
        base: The folder that relative paths start from.
        environ: The environment.
        faults: Takes what is wrong.
    """
    dsn, dsn_file = given.pop("dsn", None), given.pop("dsn_file", None)
    if faults.has_fault_at(*_DSN) or faults.has_fault_at(*_DSN_FILE):
        return None
    if dsn is not None and dsn_file is not None:
        if bool(faults.variable_of(_DSN)) == bool(faults.variable_of(_DSN_FILE)):
            faults.add(_DSN_FILE, "dsn is given too; keep one of the two")
            return None
        # The environment comes before the file, whichever of the two keys it uses.
        dsn, dsn_file = (dsn, None) if faults.variable_of(_DSN) else (None, dsn_file)
    if dsn is not None:
        target = _parse_target(dsn, faults.source_of(_DSN), base, _DSN, faults)
        return _check_service(target, _DSN, environ, faults)
    if dsn_file is not None:
        target = _from_file(absolute(dsn_file, base), base, _DSN_FILE, faults)
        return _check_service(target, _DSN_FILE, environ, faults)
    return _check_service(_from_environment(base, environ, faults), None, environ, faults)


def _check_service(
    target: Server | EmbeddedStore | None,
    where: tuple[str, ...] | None,
    environ: Mapping[str, str],
    faults: FaultCollector,
) -> Server | EmbeddedStore | None:
    """Return the target unless it names a service that is not defined: the driver would connect elsewhere."""
    service = service_of(target.dsn.secret_value()) if isinstance(target, Server) else None
    problem = _service_problem(service, environ) if service else None
    if not isinstance(target, Server) or problem is None:
        return target
    # Of the several libpq variables, this one is wrong.
    source = "PGSERVICE" if target.source.startswith("PG") and where is None else target.source
    _report(where, None if where == _DSN else source, problem, faults)
    return None


def _from_environment(base: Path, environ: Mapping[str, str], faults: FaultCollector) -> Server | EmbeddedStore | None:
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory, "dsn")
        try:
            credential.stat()
        except FileNotFoundError:
            pass  # credentials for something else
        except OSError as error:
            faults.add_source_fault(str(credential), read_error_text(error))
            return None
        else:
            return _from_file(credential, base, None, faults)
    return _from_libpq_variables(environ, faults)


def _from_libpq_variables(environ: Mapping[str, str], faults: FaultCollector) -> Server | None:
    names = [name for name in _LIBPQ_VARIABLES if environ.get(name)]
    if not names:
        faults.add(("database",), _NO_DSN)
        return None
    port = environ.get("PGPORT", "")
    if port and not all(re.fullmatch(r"[0-9]{1,5}", one) and 0 < int(one) < 65536 for one in port.split(",")):
        faults.add_source_fault("PGPORT", "expected a port, a number from 1 to 65535")
        return None
    # asyncpg reads PGSERVICE too late to apply it; in the connection string it applies.
    service = environ.get("PGSERVICE")
    text = f"postgresql://?service={quote(service, safe='')}" if service else ""
    shown = text or "libpq's variables"
    return Server(Dsn(text, redacted=shown), source=", ".join(names))


def _from_file(
    path: Path, base: Path, where: tuple[str, ...] | None, faults: FaultCollector
) -> Server | EmbeddedStore | None:
    try:
        text = read_text(path, _MAX_BYTES)
    except OSError as error:
        _report(where, path, read_error_text(error), faults)
        return None
    except UnicodeDecodeError:
        _report(where, path, "is not UTF-8 text", faults)
        return None
    return _parse_target(text, str(path), base, where, faults)


def _parse_target(
    text: str, came_from: str, base: Path, where: tuple[str, ...] | None, faults: FaultCollector
) -> Server | EmbeddedStore | None:
    # Files and secrets usually end with a line break.
    text = text.rstrip("\r\n")
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("embedded", "ephemeral"):
        problem = _store_problem(scheme, rest)
        if problem is None:
            return EmbeddedStore(absolute(rest, base) if rest else None, ephemeral=scheme == "ephemeral")
        problems = [problem]
    else:
        problems = problems_of(text)
    for problem in problems:
        path = None if where == _DSN else came_from
        _report(where, path, problem, faults)
    return None if problems else Server(Dsn(text, redacted=redact(text)), came_from)


def _store_problem(scheme: str, rest: str) -> str | None:
    if scheme == "ephemeral" and rest:
        return 'expected "ephemeral:" with nothing after it; a store at a place of its own is "embedded:/path"'
    if rest.startswith("//"):
        return 'expected "embedded:", "embedded:/path" or "embedded:path"; leave out the "//"'
    if rest.startswith("~"):
        return '"~" has no meaning in a connection string; write the path in full'
    return None if "\0" not in rest and rest.isprintable() else "has a control character in its path"


def _report(where: tuple[str, ...] | None, path: Path | str | None, problem: str, faults: FaultCollector) -> None:
    if where is None:
        faults.add_source_fault(str(path), problem)
    else:
        faults.add(where, problem if path is None else f"{path} {problem}")


def _service_problem(service: str, environ: Mapping[str, str]) -> str | None:
    """Return what is wrong with a service that is to be connected to, without anything of its file; None: nothing.

    Args:
        service: Its name.
        environ: The environment, for PGSERVICEFILE and HOME.
    """
    # Hardly any configuration has a service, and the import would cost every start.
    from configparser import ConfigParser, Error  # noqa: PLC0415

    path = _service_file(environ)
    if path is None:
        return f"names the service {quoted(service)}, but there is no home folder to look in; set PGSERVICEFILE"
    start = f"names the service {quoted(service)}, but the service file {printable_line(str(path))}"
    parser = ConfigParser()
    try:
        with path.open() as file:
            parser.read_file(file)
        if parser.has_section(service):
            parser.items(service)
            return None
    except FileNotFoundError:
        section = printable_line(service)
        return f"{start} does not exist; write it, or set PGSERVICEFILE to the file that has a section [{section}]"
    except OSError as error:
        return f"{start} {read_error_text(error)}"
    except (Error, UnicodeDecodeError):
        # What the parser says repeats the line, and a password may stand there.
        return f"{start} cannot be understood: it has sections and lines such as host=name, and % is written %%"
    section = printable_line(service)
    return f"{start} has no section [{section}]; add it, or set PGSERVICEFILE to the file that has it"


def _service_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file that the driver will read."""
    if (named := environ.get("PGSERVICEFILE")) is not None:
        return Path(named)
    try:
        return Path(environ.get("HOME") or Path.home(), ".pg_service.conf")
    except RuntimeError:
        return None
