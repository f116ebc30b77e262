"""Where the connection string comes from: environment, file, credential, libpq's own variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from supervisor.config.dsn import problems_of, redact, service_of
from supervisor.config.location import absolute
from supervisor.config.model import Dsn, EmbeddedStore, Server
from supervisor.config.service_file import problem_of_service
from supervisor.config.toml_file import cannot_be_read, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.config.table import Faults

_DSN = ("database", "dsn")
_DSN_FILE = ("database", "dsn_file")
_LARGEST_BYTES = 64 * 1024
_OF_LIBPQ = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGPASSFILE", "PGSERVICE")
_NO_DSN = (
    'there is no dsn; write dsn = "postgresql://…" or dsn_file = "…" in [database], set'
    " PGSUPERVISOR__DATABASE__DSN, hand over a systemd credential named dsn, or set libpq's PGHOST, PGUSER, PGDATABASE;"
    ' "embedded:" is a PostgreSQL of the daemon\'s own'
)


def read_target(
    given: dict[str, Any], base: Path, environ: Mapping[str, str], faults: Faults
) -> Server | EmbeddedStore | None:
    """Return the database that is meant, or None with a fault.

    Args:
        given: The fields of `[database]`; `dsn` and `dsn_file` are taken out.
        base: The folder that relative paths start from.
        environ: The environment.
        faults: Takes what is wrong.
    """
    dsn, dsn_file = given.pop("dsn", None), given.pop("dsn_file", None)
    if faults.concern(*_DSN) or faults.concern(*_DSN_FILE):
        return None
    if dsn is not None and dsn_file is not None:
        if bool(faults.variable_of(_DSN)) == bool(faults.variable_of(_DSN_FILE)):
            faults.add(_DSN_FILE, "dsn is given too; keep one of the two")
            return None
        # The environment comes before the file, whichever of the two keys it uses.
        dsn, dsn_file = (dsn, None) if faults.variable_of(_DSN) else (None, dsn_file)
    if dsn is not None:
        target = _judge(dsn, faults.source_of(_DSN), base, _DSN, faults)
        return _with_service(target, _DSN, environ, faults)
    if dsn_file is not None:
        target = _from_file(absolute(dsn_file, base), base, _DSN_FILE, faults)
        return _with_service(target, _DSN_FILE, environ, faults)
    return _with_service(_from_surroundings(base, environ, faults), None, environ, faults)


def _with_service(
    target: Server | EmbeddedStore | None, where: tuple[str, ...] | None, environ: Mapping[str, str], faults: Faults
) -> Server | EmbeddedStore | None:
    """Return the target unless it names a service that is not defined: the driver would connect elsewhere."""
    service = service_of(target.dsn.secret_value()) if isinstance(target, Server) else None
    problem = problem_of_service(service, environ) if service else None
    if not isinstance(target, Server) or problem is None:
        return target
    # What libpq's variables give comes from several; the one to blame is this.
    source = "PGSERVICE" if target.source.startswith("PG") and where is None else target.source
    _report(where, None if where == _DSN else source, problem, faults)
    return None


def _from_surroundings(base: Path, environ: Mapping[str, str], faults: Faults) -> Server | EmbeddedStore | None:
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory, "dsn")
        try:
            credential.stat()
        except FileNotFoundError:
            pass  # credentials for something else
        except OSError as error:
            faults.add_from(str(credential), cannot_be_read(error))
            return None
        else:
            return _from_file(credential, base, None, faults)
    return _from_libpq(environ, faults)


def _from_libpq(environ: Mapping[str, str], faults: Faults) -> Server | None:
    names = [name for name in _OF_LIBPQ if environ.get(name)]
    if not names:
        faults.add(("database",), _NO_DSN)
        return None
    port = environ.get("PGPORT", "")
    if port and not all(re.fullmatch(r"[0-9]{1,5}", one) and 0 < int(one) < 65536 for one in port.split(",")):
        faults.add_from("PGPORT", "expected a port, a number from 1 to 65535")
        return None
    # asyncpg reads PGSERVICE too late to heed it; in the connection string it does.
    service = environ.get("PGSERVICE")
    text = f"postgresql://?service={quote(service, safe='')}" if service else ""
    shown = text or "libpq's variables"
    return Server(Dsn(text, redacted=shown), source=", ".join(names))


def _from_file(path: Path, base: Path, where: tuple[str, ...] | None, faults: Faults) -> Server | EmbeddedStore | None:
    try:
        text = read_text(path, _LARGEST_BYTES)
    except OSError as error:
        _report(where, path, cannot_be_read(error), faults)
        return None
    except UnicodeDecodeError:
        _report(where, path, "is not UTF-8 text", faults)
        return None
    return _judge(text, str(path), base, where, faults)


def _judge(
    text: str, came_from: str, base: Path, where: tuple[str, ...] | None, faults: Faults
) -> Server | EmbeddedStore | None:
    # A line break at the end is what files and secrets are delivered with.
    text = text.rstrip("\r\n")
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("embedded", "ephemeral"):
        problem = _problem_of_store(scheme, rest)
        if problem is None:
            return EmbeddedStore(absolute(rest, base) if rest else None, ephemeral=scheme == "ephemeral")
        problems = [problem]
    else:
        problems = problems_of(text)
    for problem in problems:
        path = None if where == _DSN else came_from
        _report(where, path, problem, faults)
    return None if problems else Server(Dsn(text, redacted=redact(text)), came_from)


def _problem_of_store(scheme: str, rest: str) -> str | None:
    if scheme == "ephemeral" and rest:
        return 'expected "ephemeral:" with nothing behind it; a store with a place of its own is "embedded:/path"'
    if rest.startswith("//"):
        return 'expected "embedded:", "embedded:/path" or "embedded:path"; leave out the "//"'
    if rest.startswith("~"):
        return '"~" stands for nothing in a connection string; write the path in full'
    return None if "\0" not in rest and rest.isprintable() else "has a control character in its path"


def _report(where: tuple[str, ...] | None, path: Path | str | None, problem: str, faults: Faults) -> None:
    if where is None:
        faults.add_from(str(path), problem)
    else:
        faults.add(where, problem if path is None else f"{path} {problem}")
