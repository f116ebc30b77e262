"""libpq's service file, looked at before the driver does.

The driver takes no notice of a service that is not defined and connects to whatever is left: the
local socket, or the database of somebody else's variables.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.config.toml_file import cannot_be_read
from supervisor.config.value import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping


def problem_of_service(service: str, environ: Mapping[str, str]) -> str | None:
    """Return what is wrong with a service that is to be connected to, without anything of its file; None: nothing.

    Args:
        service: Its name.
        environ: The environment, for PGSERVICEFILE and HOME.
    """
    # Only here: hardly any configuration has a service, and the import is not free at every start.
    from configparser import ConfigParser, Error  # noqa: PLC0415

    path = _service_file(environ)
    if path is None:
        return f"names the service {quoted(service)}, but there is no home folder to look in; set PGSERVICEFILE"
    said = f"names the service {quoted(service)}, but the service file {printable(str(path))}"
    parser = ConfigParser()
    try:
        with path.open() as file:
            parser.read_file(file)
        if parser.has_section(service):
            parser.items(service)
            return None
    except FileNotFoundError:
        section = printable(service)
        return f"{said} does not exist; write it, or set PGSERVICEFILE to the file that has a section [{section}]"
    except OSError as error:
        return f"{said} {cannot_be_read(error)}"
    except (Error, UnicodeDecodeError):
        # What the parser says repeats the line, and a password may stand there.
        return f"{said} cannot be understood: it has sections and lines such as host=name, and % is written %%"
    section = printable(service)
    return f"{said} has no section [{section}]; add it, or set PGSERVICEFILE to the file that has it"


def _service_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file that the driver will read."""
    if (told := environ.get("PGSERVICEFILE")) is not None:
        return Path(told)
    try:
        return Path(environ.get("HOME") or Path.home(), ".pg_service.conf")
    except RuntimeError:
        return None
