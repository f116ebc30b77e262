"""docs/reference/configuration.md and commands.md, made from the schema and the parser: `make docs` writes them."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.backoff import Backoff
from supervisor.cli.main import command_parser
from supervisor.config import validators
from supervisor.config.kinds import KINDS
from supervisor.config.model import DaemonConfig, DatabaseConfig, EventsConfig, LogConfig, WorkerSpec
from supervisor.config.schema import COMMON, TOP
from supervisor.config.validators import Choice, Duration, Integer
from supervisor.durations import format_duration
from supervisor.exit_status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.table_reader import Key, OnReload

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
REMEDY = "write it again: make docs"

_CONFIGURATION = """# Configuration

<!-- Generated from supervisor/config/schema.py and kinds.py by `make docs`; change it there. -->

A TOML file. The commands and the daemon read the file that `-c` names, else `$PGSUPERVISOR_CONFIG`, else
`./pgsupervisor.toml`, else `/etc/pgsupervisor/pgsupervisor.toml`. The daemon's name is the name of the file without
`.toml`. `pgsupervisor check` reports all configuration errors together, each with its key path.
[The commented file](../../config/pgsupervisor.toml) shows every key with its default.

Only a dsn and one worker are required:

```toml
[database]
dsn = "postgresql:///app"

[workers.mail]
run = "app.workers:mail"
```

- A **duration** is a number with its unit: `"250ms"`, `"5s"`, `"2m"`, `"1h"`, `"1d"`.
- A relative **path** starts from the folder of the file.
- The **environment** overrides every key: `PGSUPERVISOR__DATABASE__POOL_MAX=20`, in upper case, with `__` between the
  levels and `_` for a `-` in a worker's name. The value is TOML where it parses as such, else text. A variable that
  fits no key is an error.
- The **dsn** comes from the environment, else from `dsn`, else from `dsn_file`, else from the systemd credential `dsn`,
  else from libpq's own variables. Of several hosts each has a timeout of its own. Where the driver and libpq read hosts
  and ports differently, libpq's rule holds.
- A **worker's name** has lower-case letters, digits, `_` and `-`.

The column *reload* says what a reload does when the value has changed:

| reload | meaning |
| --- | --- |
"""
_ON_RELOAD: Mapping[OnReload, tuple[str, str]] = {
    "live": ("applied", "Applied at once; nothing is interrupted."),
    "reconnect": ("reconnects", "Applied, with new connections to the database."),
    "replace": ("restarts the worker", "Applied; the worker is stopped and started again."),
    "start": ("at the next start", "Read at a start only; a reload changes nothing."),
    "restart": ("needs a restart", "The reload is refused: restart the daemon."),
}
_TYPES = {
    validators.boolean: "`true` or `false`",
    validators.cron: "cron expression",
    validators.factor: "number, 1 to 1000",
    validators.function: "text",
    validators.globs: "list of patterns",
    validators.path_text: "path",
    validators.path_texts: "list of paths",
    validators.secret_text: "text",
    validators.table: "table",
}
_MODELS: Mapping[str, Any] = {
    "supervisor": DaemonConfig,
    "log": LogConfig,
    "database": DatabaseConfig,
    "events": EventsConfig,
}

_COMMANDS = """# Commands

<!-- Generated from supervisor/cli/main.py by `make docs`; change it there. -->

`python -m supervisor` is the same command as `pgsupervisor`.

- Commands for a running daemon (`status`, `reload`, `pause`, `resume`, `restart`) use its control socket, as root or as
  the daemon's own user. They work while the configuration is wrong; `--control` names the socket if needed.
- `migrate`, `append` and `projections` need no running daemon: they connect to the database of the configuration.
- `check` exits with 78 also when `--connect` cannot connect.
- A pause outlasts a reload, but not a restart of the daemon.

## Exit statuses

The statuses from 64 to 78 are those of BSD's `sysexits.h`; systemd prints their names. `run` ends with any of them
but 1 and 130.

| status | name | meaning |
| --- | --- | --- |
"""
_STATUSES = {
    ExitStatus.OK: "done; for `run`: stopped as asked",
    ExitStatus.REFUSED: "a command was refused, and nothing was changed; for `reload` also: applied only in part"
    " (`reload.incomplete`)",
    ExitStatus.USAGE: "the command line is wrong, or the event to append is invalid",
    ExitStatus.UNAVAILABLE: "the database cannot be reached, or no daemon answers; for `run`: gave up connecting at the"
    " start",
    ExitStatus.SOFTWARE: 'a worker with `exhausted = "exit"` used up its restarts, a worker did not stop after losing'
    " its lease, or a fault of the daemon itself",
    ExitStatus.TEMPFAIL: "another process keeps the embedded store or the control socket",
    ExitStatus.NOPERM: "the server refused the login, the database or a privilege; for `run`: at the start",
    ExitStatus.CONFIG: "the configuration is wrong, or the SQL schema does not fit this version; the shipped units do"
    " not restart the daemon after this status and after 64",
    ExitStatus.INTERRUPTED: "Ctrl-C ended a command",
}
_OF_DATABASE = (0, 64, 69, 77, 78)
_OF_CONTROL = (0, 1, 64, 69)
_STATUSES_OF: Mapping[str, tuple[int, ...]] = {
    "run": (0, 64, 69, 70, 75, 77, 78),
    "check": (0, 64, 78),
    "status": (0, 64, 69),
    "reload": _OF_CONTROL,
    "pause": _OF_CONTROL,
    "resume": _OF_CONTROL,
    "restart": _OF_CONTROL,
    "migrate": _OF_DATABASE,
    "append": _OF_DATABASE,
    "projections list": _OF_DATABASE,
    "projections reset": (0, 1, 64, 69, 77, 78),
    "projections skip": (0, 1, 64, 69, 77, 78),
    "projections forget": (0, 1, 64, 69, 77, 78),
    "unit": (0, 64, 78),
}


def configuration_page() -> str:
    """Return the page of the configuration as it has to be."""
    lines = [f"| {name} | {meaning} |" for name, meaning in _ON_RELOAD.values()]
    for section, table in TOP.items():
        if table.inner is not None:
            lines += ["", f"## `[{section}]`", "", table.doc, "", *_table(section, table.inner, _MODELS[section])]
    lines += ["", "## `[workers.NAME]`", "", "Keys of all kinds of worker.", ""]
    lines += _table("workers.NAME", COMMON, WorkerSpec)
    for kind in KINDS.values():
        lines += ["", f'### `kind = "{kind.name}"`', ""]
        lines += [f"{kind.doc} The function is called with `{', '.join(kind.handler_parameters)}`.", ""]
        lines += _table("workers.NAME", kind.keys, kind.settings_type)
    return _CONFIGURATION + "\n".join(lines) + "\n"


def _table(path: str, keys: Mapping[str, Key], model: Any) -> list[str]:
    head = ["| key | type | default | reload | meaning |", "| --- | --- | --- | --- | --- |"]
    return head + [f"| {' | '.join(cells)} |" for cells in _rows(path, keys, model._field_defaults, None)]


def _rows(
    path: str, keys: Mapping[str, Key], defaults: Mapping[str, Any], parent: OnReload | None
) -> Iterator[tuple[str, ...]]:
    for name, key in keys.items():
        on_reload = parent or key.on_reload
        default = "" if key.inner is not None else key.default or _value(key, defaults[key.field])
        yield f"`{path}.{name}`", _type(key), default, _ON_RELOAD[on_reload][0], key.doc
        if key.inner is not None:
            yield from _rows(f"{path}.{name}", key.inner, _inner_defaults(defaults[key.field]), on_reload)


def _inner_defaults(value: Any) -> Mapping[str, Any]:
    """Return the fields of a policy, with those of the backoff in it, or of a backoff."""
    fields: dict[str, Any] = value._asdict()
    backoff = fields.pop("backoff", None)
    return fields | (backoff._asdict() if isinstance(backoff, Backoff) else {})


def _type(key: Key) -> str:
    match key.read:
        case Choice(words=words):
            return ", ".join(f'`"{word}"`' for word in words)
        case Duration(zero=zero):
            return "duration, or 0" if zero else "duration"
        case Integer(least=least, most=most):
            return f"integer, {least} to {most}"
        case _:
            return _TYPES[key.read]  # type: ignore[index]  # a function


def _value(key: Key, value: Any) -> str:
    if isinstance(key.read, Duration):
        return f'`"{format_duration(value) if value else "0s"}"`'
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case _:
            return f"`{value}`"


def commands_page() -> str:
    """Return the page of the commands as it has to be."""
    lines = [f"| {status.value} | {status.name} | {_STATUSES[status]} |" for status in ExitStatus]
    for name, parser in _parsers(command_parser(), ()):
        statuses = ", ".join(str(status) for status in _STATUSES_OF[name])
        call = " ".join(["pgsupervisor", name, *_positionals(parser)])
        lines += ["", f"## {name}", "", f"`{call}`: {_first_lower(parser.description)}", ""]
        lines += ["```text", _usage(parser), "```", "", "| argument | |", "| --- | --- |"]
        lines += [
            f"| `{_invocation(action)}` | {_help(action)} |" for action in parser._actions if action.dest != "help"
        ]
        lines += ["", f"Exit status: {statuses}."]
    return _COMMANDS + "\n".join(lines) + "\n"


def _parsers(
    parser: argparse.ArgumentParser, names: tuple[str, ...]
) -> Iterator[tuple[str, argparse.ArgumentParser]]:  # fmt: skip
    """Yield every command that does something, by its words."""
    (*_, subparsers) = (action for action in [None, *parser._actions] if action is None or action.choices)
    if not isinstance(subparsers, argparse._SubParsersAction):
        yield " ".join(names), parser
        return
    for name, command in subparsers.choices.items():
        yield from _parsers(command, (*names, name))


def _usage(parser: argparse.ArgumentParser) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "200"  # no line breaks, whose places differ between versions of Python
    try:
        return parser.format_usage().removeprefix("usage: ").strip()
    finally:
        os.environ.pop("COLUMNS")
        os.environ |= {} if before is None else {"COLUMNS": before}


def _positionals(parser: argparse.ArgumentParser) -> list[str]:
    given = [action for action in parser._actions if not action.option_strings]
    return [f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar) for action in given]


def _invocation(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    metavar = action.metavar if action.nargs != 0 else None
    return " ".join(str(part) for part in (names, metavar) if part)


def _help(action: argparse.Action) -> str:
    return re.sub(r"\{\}", "`{}`", action.help or "")


def _first_lower(text: str | None) -> str:
    assert text
    return f"{text[0].lower()}{text[1:]}"


PAGES = {"configuration.md": configuration_page, "commands.md": commands_page}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, page in PAGES.items():
        (FOLDER / file).write_text(page(), encoding="utf-8")
